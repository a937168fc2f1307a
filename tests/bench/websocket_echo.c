/* An echo server of libwebsockets' own, as its users write them: what the gateway's round trips are compared with. */
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct echo {
    unsigned char bytes[LWS_PRE + 4096];
    size_t len;
};

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct echo *echo = user;
    if (reason == LWS_CALLBACK_RECEIVE) {
        echo->len = len < 4096 ? len : 4096;
        memcpy(echo->bytes + LWS_PRE, in, echo->len);
        lws_callback_on_writable(wsi);
    } else if (reason == LWS_CALLBACK_SERVER_WRITEABLE && echo->len != 0) {
        int written = lws_write(wsi, echo->bytes + LWS_PRE, echo->len, LWS_WRITE_TEXT);
        echo->len = 0;
        return written < 0 ? -1 : 0;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct lws_protocols protocols[] = {{"echo", on_event, sizeof(struct echo), 4096, 0, NULL, 0},
                                                     {.name = NULL}};
    struct lws_context_creation_info info = {.port = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0,
                                             .iface = "127.0.0.1",
                                             .protocols = protocols,
                                             .gid = (gid_t)-1,
                                             .uid = (uid_t)-1};
    lws_set_log_level(LLL_ERR, NULL);
    struct lws_context *context = lws_create_context(&info);
    if (context == NULL)
        return 1;
    while (lws_service(context, 0) >= 0)
        ;
    return 0;
}
