#include "base/redis_conn.h"
#include "base/clock.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/async.h>
#include <hiredis/sds.h>
#include <stdio.h>
#include <unistd.h>

#define ADDRESSES_MAX 8
#define REPLY_LINE_MAX ((size_t)64 * 1024)
#define OBJECT_SIZE ((size_t)64) /* what an element of a reply costs beside its text */

struct redis_conn {
    struct redis_conn_settings settings;
    redisAsyncContext *ac; /* NULL: not connecting, or lost */
    h2o_socket_t *sock;    /* on a copy of hiredis' descriptor, which hiredis closes itself */
    h2o_hostinfo_getaddr_req_t *lookup;
    struct deadline deadline;
    h2o_timeout_entry_t flush;
    redisReplyObjectFunctions functions;
    const redisReplyObjectFunctions *plain; /* hiredis' own */
    char addresses[ADDRESSES_MAX][INET6_ADDRSTRLEN];
    size_t address_count, address;
    size_t pending;    /* replies that are awaited */
    size_t reply_size; /* of the reply being read */
    unsigned busy;     /* hiredis is on the stack */
    bool reading, writing, armed, flushing, opened, open, closed;
    char why[160];
};

/* In the order in which they fire. */
static void on_lookup(h2o_hostinfo_getaddr_req_t *req, const char *err, struct addrinfo *found, void *owner);
static void connect_next(struct redis_conn *conn);
static void on_connect(const redisAsyncContext *ac, int status);
static void on_flush(h2o_timeout_entry_t *entry);
static void on_writable(h2o_socket_t *sock, const char *err);
static void on_readable(h2o_socket_t *sock, const char *err);
static void on_reply(redisAsyncContext *ac, void *reply, void *pending);
static void on_cleanup(void *conn);
static void on_deadline(struct deadline *deadline);

/* ---- ends ---- */

/* Takes everything down but the struct; pendings are called. Not while hiredis is on the stack. */
static void drop(struct redis_conn *conn)
{
    if (conn->lookup != NULL) {
        h2o_hostinfo_getaddr_cancel(conn->lookup);
        conn->lookup = NULL;
    }
    deadline_disarm(conn->settings.deadlines, &conn->deadline);
    conn->open = false;
    if (conn->ac != NULL) {
        conn->busy++;
        redisAsyncFree(conn->ac);
        conn->busy--;
    }
}

void redis_conn_close(struct redis_conn *conn)
{
    conn->closed = true;
    conn->open = false;
    if (conn->busy != 0)
        return; /* see leave */
    drop(conn);
    free(conn);
}

static void end(struct redis_conn *conn)
{
    void (*on_close)(void *, const char *) = conn->settings.on_close;
    void *owner = conn->settings.owner;
    char why[sizeof(conn->why)];
    memcpy(why, conn->why, sizeof(why));
    drop(conn);
    free(conn);
    on_close(owner, why);
}

/* hiredis has returned: what it brought about is done now. False if the connection is gone. */
static bool leave(struct redis_conn *conn)
{
    if (--conn->busy != 0)
        return true;
    if (conn->closed) {
        drop(conn);
        free(conn);
        return false;
    }
    if (conn->ac != NULL)
        return true;
    conn->open = false;
    if (!conn->opened && conn->address < conn->address_count) {
        connect_next(conn);
        return true;
    }
    end(conn);
    return false;
}

/* Ends it soon, from where the owner must not be called; `why` NULL: conn->why says it. */
static void fail_soon(struct redis_conn *conn, const char *why)
{
    if (why != NULL)
        snprintf(conn->why, sizeof(conn->why), "%s", why);
    deadline_arm(conn->settings.deadlines, &conn->deadline, 0);
}

static void on_deadline(struct deadline *deadline)
{
    struct redis_conn *conn = H2O_STRUCT_FROM_MEMBER(struct redis_conn, deadline, deadline);
    if (conn->why[0] == '\0')
        snprintf(conn->why, sizeof(conn->why), "%s",
                 conn->lookup != NULL ? "its name was not resolved in time" : "no connection in time");
    end(conn);
}

/* ---- what hiredis may build ---- */

/* Counts what a reply costs; false if it is too much, or nobody has asked for it: hiredis then ends the connection as
 * if there were no memory. */
static bool afford(const redisReadTask *task, size_t size)
{
    struct redis_conn *conn = task->privdata;
    if (task->parent == NULL) {
        conn->reply_size = 0;
        if (conn->pending == 0) {
            snprintf(conn->why, sizeof(conn->why), "it answers what was not asked");
            return false;
        }
    }
    if (size > REDIS_REPLY_MAX - conn->reply_size) {
        snprintf(conn->why, sizeof(conn->why), "its reply is too large");
        return false;
    }
    conn->reply_size += size;
    return true;
}

static void *create_string(const redisReadTask *task, char *text, size_t len)
{
    struct redis_conn *conn = task->privdata;
    return len <= REDIS_REPLY_MAX && afford(task, len + OBJECT_SIZE) ? conn->plain->createString(task, text, len)
                                                                     : NULL;
}

static void *create_array(const redisReadTask *task, int elements)
{
    struct redis_conn *conn = task->privdata;
    return afford(task, (size_t)elements * sizeof(void *) + OBJECT_SIZE) ? conn->plain->createArray(task, elements)
                                                                         : NULL;
}

static void *create_integer(const redisReadTask *task, long long value)
{
    struct redis_conn *conn = task->privdata;
    return afford(task, OBJECT_SIZE) ? conn->plain->createInteger(task, value) : NULL;
}

static void *create_nil(const redisReadTask *task)
{
    struct redis_conn *conn = task->privdata;
    return afford(task, OBJECT_SIZE) ? conn->plain->createNil(task) : NULL;
}

/* hiredis gathers a string until it is whole, and a line however long: what has been gathered is bounded here. Each
 * read adds at most 16 KiB. */
static bool input_is_sane(struct redis_conn *conn)
{
    const redisReader *reader = conn->ac->c.reader;
    size_t unread = reader->len - reader->pos;
    if (unread <= REPLY_LINE_MAX)
        return true;
    if (unread <= REDIS_REPLY_MAX && memchr(reader->buf + reader->pos, '\n', REPLY_LINE_MAX) != NULL)
        return true;
    snprintf(conn->why, sizeof(conn->why), "its reply is too large");
    return false;
}

/* ---- hiredis on the loop ---- */

static void add_read(void *arg)
{
    struct redis_conn *conn = arg;
    if (!conn->reading)
        h2o_socket_read_start(conn->sock, on_readable);
    conn->reading = true;
}

static void del_read(void *arg)
{
    struct redis_conn *conn = arg;
    if (conn->reading)
        h2o_socket_read_stop(conn->sock);
    conn->reading = false;
}

/* Commands are written together when the loop has run its callbacks, without asking epoll first; only what did not fit
 * into the socket waits for it. */
static void add_write(void *arg)
{
    struct redis_conn *conn = arg;
    conn->writing = true;
    if (conn->armed)
        return;
    if (conn->opened && !conn->flushing) {
        if (!h2o_timeout_is_linked(&conn->flush))
            h2o_timeout_link(conn->settings.ctx->loop, &conn->settings.ctx->zero_timeout, &conn->flush);
        return;
    }
    conn->armed = true;
    h2o_socket_notify_write(conn->sock, on_writable);
}

static void del_write(void *arg)
{
    struct redis_conn *conn = arg;
    conn->writing = false;
}

/* hiredis lets go of its context. */
static void on_cleanup(void *arg)
{
    struct redis_conn *conn = arg;
    if (conn->why[0] == '\0' && conn->ac->errstr != NULL)
        snprintf(conn->why, sizeof(conn->why), "%s", conn->ac->errstr);
    conn->ac = NULL;
    conn->reading = conn->writing = conn->armed = false;
    h2o_timeout_unlink(&conn->flush);
    h2o_socket_close(conn->sock);
    conn->sock = NULL;
}

static void write_out(struct redis_conn *conn)
{
    conn->busy++;
    conn->flushing = true;
    redisAsyncHandleWrite(conn->ac);
    conn->flushing = false;
    leave(conn);
}

static void on_flush(h2o_timeout_entry_t *entry)
{
    struct redis_conn *conn = H2O_STRUCT_FROM_MEMBER(struct redis_conn, flush, entry);
    if (!conn->armed)
        write_out(conn);
}

static void on_writable(h2o_socket_t *sock, const char *err)
{
    struct redis_conn *conn = sock->data;
    (void)err; /* hiredis finds out itself */
    conn->armed = false;
    if (conn->writing)
        write_out(conn);
}

static void on_readable(h2o_socket_t *sock, const char *err)
{
    struct redis_conn *conn = sock->data;
    (void)err;
    conn->busy++;
    redisAsyncHandleRead(conn->ac);
    if (!conn->closed && conn->ac != NULL && !input_is_sane(conn))
        redisAsyncFree(conn->ac);
    if (leave(conn) && conn->open)
        conn->settings.on_heard(conn->settings.owner);
}

/* ---- connecting ---- */

static bool attach(struct redis_conn *conn)
{
    redisAsyncContext *ac = conn->ac;
    int fd = fcntl(ac->c.fd, F_DUPFD_CLOEXEC, 0);
    if (fd == -1)
        return false;
    conn->sock = h2o_evloop_socket_create(conn->settings.ctx->loop, fd, H2O_SOCKET_FLAG_DONT_READ);
    conn->sock->data = conn;
    conn->plain = ac->c.reader->fn;
    conn->functions =
        (redisReplyObjectFunctions){create_string, create_array, create_integer, create_nil, conn->plain->freeObject};
    ac->c.reader->fn = &conn->functions;
    ac->c.reader->privdata = conn;
    ac->data = ac->ev.data = conn;
    ac->ev.addRead = add_read;
    ac->ev.delRead = del_read;
    ac->ev.addWrite = add_write;
    ac->ev.delWrite = del_write;
    ac->ev.cleanup = on_cleanup;
    redisAsyncSetConnectCallback(ac, on_connect); /* which waits for the socket to become writable */
    return true;
}

/* Tries the next address that does not fail at once. */
static void connect_next(struct redis_conn *conn)
{
    const struct redis_conn_settings *settings = &conn->settings;
    while (conn->address < conn->address_count) {
        const char *address = conn->addresses[conn->address++];
        conn->why[0] = '\0';
        conn->ac = settings->unix_path != NULL ? redisAsyncConnectUnix(settings->unix_path)
                                               : redisAsyncConnect(address, settings->port);
        if (conn->ac == NULL)
            abort(); /* out of memory */
        if (conn->ac->err == 0)
            fcntl(conn->ac->c.fd, F_SETFD, FD_CLOEXEC);
        if (conn->ac->err == 0 && attach(conn))
            return;
        snprintf(conn->why, sizeof(conn->why), "%s", conn->ac->err != 0 ? conn->ac->errstr : strerror(errno));
        redisAsyncFree(conn->ac);
        conn->ac = NULL;
    }
    fail_soon(conn, NULL);
}

/* Also called by hiredis just before it gives up; then on_cleanup tells. */
static void on_connect(const redisAsyncContext *ac, int status)
{
    struct redis_conn *conn = ac->data;
    if (status != REDIS_OK || conn->closed)
        return;
    conn->opened = conn->open = true;
    deadline_disarm(conn->settings.deadlines, &conn->deadline);
    if (conn->settings.unix_path == NULL)
        redisEnableKeepAlive((redisContext *)&ac->c);
    conn->settings.on_open(conn->settings.owner);
}

static void on_lookup(h2o_hostinfo_getaddr_req_t *req, const char *err, struct addrinfo *found, void *owner)
{
    struct redis_conn *conn = owner;
    (void)req;
    conn->lookup = NULL;
    for (; err == NULL && found != NULL && conn->address_count < ADDRESSES_MAX; found = found->ai_next)
        if (getnameinfo(found->ai_addr, found->ai_addrlen, conn->addresses[conn->address_count], INET6_ADDRSTRLEN, NULL,
                        0, NI_NUMERICHOST) == 0)
            conn->address_count++;
    if (conn->address_count == 0)
        fail_soon(conn, err != NULL ? err : "its name has no address");
    else
        connect_next(conn);
}

static void resolve(struct redis_conn *conn)
{
    const char *host = conn->settings.host;
    unsigned char address[sizeof(struct in6_addr)];
    if (conn->settings.unix_path != NULL || inet_pton(AF_INET, host, address) == 1 ||
        inet_pton(AF_INET6, host, address) == 1) {
        conn->address_count = 1;
        if (conn->settings.unix_path == NULL)
            snprintf(conn->addresses[0], sizeof(conn->addresses[0]), "%s", host);
        connect_next(conn);
        return;
    }
    conn->lookup = h2o_hostinfo_getaddr(&conn->settings.ctx->receivers.hostinfo_getaddr,
                                        h2o_iovec_init(host, strlen(host)), h2o_iovec_init(H2O_STRLIT("0")), AF_UNSPEC,
                                        SOCK_STREAM, IPPROTO_TCP, AI_ADDRCONFIG | AI_NUMERICSERV, on_lookup, conn);
}

struct redis_conn *redis_conn_open(const struct redis_conn_settings *settings)
{
    struct redis_conn *conn = h2o_mem_alloc(sizeof(*conn));
    memset(conn, 0, sizeof(*conn));
    conn->settings = *settings;
    conn->deadline.cb = on_deadline;
    conn->flush.cb = on_flush;
    deadline_arm(settings->deadlines, &conn->deadline, clock_us() + settings->timeout_us);
    resolve(conn);
    return conn;
}

/* ---- commands ---- */

void redis_conn_send(struct redis_conn *conn, struct span command, struct redis_pending *pending)
{
    if (redisAsyncFormattedCommand(conn->ac, on_reply, pending, command.base, command.len) != REDIS_OK)
        abort(); /* only a context that is being freed refuses, and then this one is not open */
    conn->pending++;
}

void redis_conn_flush(struct redis_conn *conn)
{
    int done;
    if (conn->ac != NULL && conn->opened && !conn->armed && !conn->flushing)
        redisBufferWrite(&conn->ac->c, &done); /* an error stays in the context for the flush that is due */
}

size_t redis_conn_unwritten(const struct redis_conn *conn)
{
    return conn->ac != NULL ? sdslen(conn->ac->c.obuf) : 0;
}

static void on_reply(redisAsyncContext *ac, void *reply, void *data)
{
    struct redis_conn *conn = ac->data;
    struct redis_pending *pending = data;
    conn->pending--;
    if (reply == NULL) /* hiredis is about to let go */
        conn->open = false;
    pending->cb(pending, conn->closed ? NULL : reply);
}
