/* Private to this folder: what every kind of exchange begins with. */
#ifndef WEIR_BACKENDS_EXCHANGE_KIND_H
#define WEIR_BACKENDS_EXCHANGE_KIND_H

#include "backends/exchange.h"

struct exchange {
    /* exchange_cancel: frees the exchange without any callback. Not called after on_head. */
    void (*cancel)(struct exchange *exchange);
};

/* The demo model's exchange_start. */
struct exchange *demo_start(const struct backend_settings *settings, struct deadlines *deadlines,
                            const struct exchange_request *request, const struct exchange_callbacks *callbacks,
                            void *ctx);

#endif
