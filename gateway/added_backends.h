/* Model servers that an administrator adds while the gateway runs. They stay over reloads, each time read anew, so that
 * what they leave open follows the new configuration; a server that the file has by then takes the place of one of the
 * same name. With the server's `reloading` held. */
#ifndef WEIR_GATEWAY_ADDED_BACKENDS_H
#define WEIR_GATEWAY_ADDED_BACKENDS_H

#include "gateway/site.h"

/* Reads a server, as config_backend_read does, and adds it to the site's fleet. NULL, with what is wrong in `error`, if
 * it cannot be: *conflict says whether it is because of the other servers; else *member receives which member is wrong,
 * "" for the whole. */
struct fleet_server *added_backend_join(struct site *site, struct span json, char member[64], char *error,
                                        size_t error_size, bool *conflict);

/* Adds to a new site's fleet what was added to the one before and is not leaving. The log hears of those that cannot
 * come along. */
void added_backends_keep(struct site *site, struct fleet *from);

#endif
