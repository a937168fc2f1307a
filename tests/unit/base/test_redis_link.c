#include "base/redis_link.h"
#include "redis_server.h"
#include "run_suite.h"
#include <pthread.h>

#define LONG_MS 20000 /* a busy machine; nothing here should need it */

static struct redis_server server;
static struct redis_loop loop;
static struct redis_link *up_link;
static struct redis_url url;
static bool is_up, is_down;
static unsigned ups, downs;
static char why[512];

static void on_state(void *ctx, bool up, const char *text)
{
    ck_assert_ptr_eq(ctx, &server);
    ck_assert(up || (text != NULL && text[0] != '\0'));
    is_up = up;
    is_down = !up;
    up ? ups++ : downs++;
    snprintf(why, sizeof(why), "%s", up ? "" : text);
}

static const char *const scripts[] = {
    "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    "return {KEYS[1], KEYS[2], ARGV[1]}",
    "return redis.call('SET', KEYS[1], ARGV[1])",
};

static void open_url(const char *text, uint64_t timeout_us, size_t max_waiting)
{
    char error[512];
    ck_assert_msg(redis_url_parse(span_of(text), &url, error, sizeof(error)), "%s", error);
    struct redis_link_settings settings = {.url = &url,
                                           .scripts = scripts,
                                           .script_count = 3,
                                           .timeout_us = timeout_us,
                                           .max_waiting = max_waiting,
                                           .max_bytes = 4 << 20,
                                           .name = "weir-test",
                                           .on_state = on_state,
                                           .ctx = &server};
    up_link = redis_link_create(&settings, &loop.ctx, &loop.deadlines);
    ck_assert(!redis_link_up(up_link));
}

static void open_link(const char *user, uint64_t timeout_us)
{
    char text[256];
    snprintf(text, sizeof(text), "unix://%s%s?db=3", user, server.path);
    open_url(text, timeout_us, 0);
}

static void must_come_up(void)
{
    ck_assert_msg(redis_loop_run(&loop, &is_up, LONG_MS), "down: %s", why);
    ck_assert(redis_link_up(up_link));
}

static void must_go_down(const char *part)
{
    ck_assert(redis_loop_run(&loop, &is_down, LONG_MS));
    ck_assert_msg(strstr(why, part) != NULL, "\"%s\" does not say \"%s\"", why, part);
}

static void setup(void)
{
    redis_server_prepare(&server);
    redis_loop_init(&loop);
    up_link = NULL;
    is_up = is_down = false;
    ups = downs = 0;
}

static void teardown(void)
{
    if (up_link != NULL)
        redis_link_destroy(up_link);
    redis_url_dispose(&url);
    redis_loop_dispose(&loop);
    redis_server_dispose(&server);
}

/* A command of the tests; keeps what came. */
struct ask {
    struct redis_command command;
    bool done;
    unsigned calls;
    int type;
    long long integer;
    size_t elements;
    char text[8192];
    enum redis_failure failure;
};

static void on_reply(struct redis_command *command, const redisReply *reply, enum redis_failure failure)
{
    struct ask *ask = H2O_STRUCT_FROM_MEMBER(struct ask, command, command);
    ask->done = true;
    ask->calls++;
    ask->failure = failure;
    ck_assert((reply == NULL) == (failure != REDIS_ANSWERED));
    if (reply == NULL)
        return;
    ask->type = reply->type;
    ask->integer = reply->integer;
    ask->elements = reply->elements;
    if (reply->str != NULL)
        snprintf(ask->text, sizeof(ask->text), "%s", reply->str);
}

static bool send_words(struct ask *ask, const char *line, enum redis_failure *failure)
{
    struct span pieces[16];
    size_t count = 0;
    *ask = (struct ask){.command.on_reply = on_reply};
    for (struct span rest = span_of(line); rest.len != 0;) {
        const char *blank = memchr(rest.base, ' ', rest.len);
        pieces[count] = (struct span){rest.base, blank != NULL ? (size_t)(blank - rest.base) : rest.len};
        rest = span_skip(rest, pieces[count++].len + 1);
    }
    return redis_link_send(up_link, &ask->command, pieces, count, failure);
}

static void ask_words(struct ask *ask, const char *line)
{
    enum redis_failure failure;
    ck_assert_msg(send_words(ask, line, &failure), "%s: not sent: %s", line, redis_failure_name(failure));
    ck_assert(!ask->done);
    ck_assert_msg(redis_loop_run(&loop, &ask->done, LONG_MS), "%s: no reply", line);
    ck_assert_uint_eq(ask->calls, 1);
}

static void run_script(struct ask *ask, size_t script, const char *key, const char *arg)
{
    enum redis_failure failure;
    *ask = (struct ask){.command.on_reply = on_reply};
    const struct span args[] = {span_of(key), span_of(arg)};
    ck_assert(redis_link_run(up_link, &ask->command, script, args, 1, 2, &failure));
}

#define SLOW 10000000 /* deadlines that a busy machine keeps */

START_TEST(commands_and_replies)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    ask_words(&ask, "SET k v");
    ck_assert_int_eq(ask.type, REDIS_REPLY_STATUS);
    ask_words(&ask, "GET k");
    ck_assert_str_eq(ask.text, "v");
    ask_words(&ask, "INCR k"); /* an error of the command's own is a reply */
    ck_assert_int_eq(ask.type, REDIS_REPLY_ERROR);
    ask_words(&ask, "CLIENT GETNAME");
    ck_assert_str_eq(ask.text, "weir-test");
    ask_words(&ask, "CLIENT INFO");
    ck_assert_ptr_nonnull(strstr(ask.text, "db=3"));
    struct redis_link_counts counts;
    redis_link_count(up_link, &counts);
    ck_assert_uint_eq(counts.commands, 5);
    ck_assert_uint_eq(counts.connects, 1);
    ck_assert_uint_eq(ups, 1);
    ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(many_are_pipelined_in_order)
{
    static struct ask asks[2000];
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    for (size_t i = 0; i < 2000; i++)
        run_script(&asks[i], 0, "n", "1");
    ck_assert(redis_loop_run(&loop, &asks[1999].done, LONG_MS));
    for (size_t i = 0; i < 2000; i++)
        ck_assert_int_eq(asks[i].integer, (long long)i + 1);
}
END_TEST

START_TEST(binary_pieces_arrive_whole)
{
    struct ask ask = {.command.on_reply = on_reply};
    enum redis_failure failure;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    static char big[600 * 1024];
    memset(big, '\n', sizeof(big));
    const struct span pieces[] = {SPAN("SET"), SPAN("a\0b\r\n$9"), {big, sizeof(big)}};
    ck_assert(redis_link_send(up_link, &ask.command, pieces, 3, &failure));
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    const struct span get[] = {SPAN("STRLEN"), SPAN("a\0b\r\n$9")};
    ask = (struct ask){.command.on_reply = on_reply};
    ck_assert(redis_link_send(up_link, &ask.command, get, 2, &failure));
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    ck_assert_int_eq(ask.integer, sizeof(big));
}
END_TEST

START_TEST(lost_scripts_come_back_once)
{
    static struct ask asks[300];
    struct ask info;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    run_script(&asks[0], 0, "n", "1");
    ck_assert(redis_loop_run(&loop, &asks[0].done, LONG_MS));
    redis_server_tell(&server, "SCRIPT FLUSH");
    for (size_t i = 0; i < 300; i++)
        run_script(&asks[i], 0, "n", "1");
    ck_assert(redis_loop_run(&loop, &asks[299].done, LONG_MS));
    for (size_t i = 0; i < 300; i++) {
        ck_assert_int_eq(asks[i].failure, REDIS_ANSWERED);
        ck_assert_int_eq(asks[i].integer, (long long)i + 2);
    }
    ask_words(&info, "INFO commandstats"); /* sent along with one, not with each */
    ck_assert_msg(strstr(info.text, "cmdstat_eval:calls=1,") != NULL, "%s", info.text);
    ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(a_loss_fails_what_waits_and_is_mended)
{
    struct ask slow, next;
    enum redis_failure failure;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    ck_assert(send_words(&slow, "BLPOP nothing 0", &failure));
    redis_loop_run(&loop, NULL, 50);
    redis_server_tell(&server, "CLIENT KILL TYPE normal SKIPME yes");
    ck_assert(redis_loop_run(&loop, &slow.done, LONG_MS));
    ck_assert_int_eq(slow.failure, REDIS_LOST);
    ck_assert(!redis_link_up(up_link));
    ck_assert(!send_words(&next, "PING", &failure));
    ck_assert_int_eq(failure, REDIS_DOWN);
    ck_assert_uint_eq(downs, 1); /* it had not stood for long */
    must_come_up();
    ask_words(&next, "PING");
    ck_assert_uint_eq(ups, 2);
    redis_loop_run(&loop, NULL, 1100);
    redis_server_tell(&server, "CLIENT KILL TYPE normal SKIPME yes");
    for (int i = 0; i < 2000 && redis_link_up(up_link); i++)
        redis_loop_run(&loop, NULL, 10);
    for (int i = 0; i < 2000 && !redis_link_up(up_link); i++)
        redis_loop_run(&loop, NULL, 1);
    ask_words(&next, "PING");
    struct redis_link_counts counts;
    redis_link_count(up_link, &counts);
    ck_assert_uint_eq(counts.connects, 3);
    ck_assert_uint_eq(downs, 1);
}
END_TEST

START_TEST(killed_and_restarted_it_is_found_again)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    redis_server_kill(&server);
    must_go_down("");
    redis_loop_run(&loop, NULL, 300);
    redis_server_start(&server, NULL);
    must_come_up();
    ask_words(&ask, "PING");
    ck_assert_uint_eq(downs, 1); /* not once for each attempt */
}
END_TEST

START_TEST(late_replies_are_dropped)
{
    struct ask slow, next;
    enum redis_failure failure;
    redis_server_start(&server, NULL);
    open_link("", 30000);
    must_come_up();
    ck_assert(send_words(&slow, "BLPOP list 0", &failure));
    ck_assert(redis_loop_run(&loop, &slow.done, LONG_MS));
    ck_assert_int_eq(slow.failure, REDIS_LATE);
    memset(&slow, 0xaa, sizeof(slow)); /* its memory is somebody else's now */
    redis_server_tell(&server, "SELECT 3\r\nLPUSH list x");
    redis_loop_run(&loop, NULL, 50);
    do
        if (!send_words(&next, "GET list", &failure))
            ck_abort_msg("%s", redis_failure_name(failure));
        else
            ck_assert(redis_loop_run(&loop, &next.done, LONG_MS));
    while (next.failure == REDIS_LATE); /* a busy machine */
    ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(a_cancelled_command_is_never_called)
{
    static struct ask gone; /* the last use is still on its way when the link goes */
    struct ask next;
    enum redis_failure failure;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    redis_command_cancel(&(struct redis_command){.on_reply = on_reply});
    ck_assert(send_words(&gone, "PING", &failure));
    redis_command_cancel(&gone.command);
    redis_command_cancel(&gone.command);
    memset(&gone, 0xaa, sizeof(gone));
    ask_words(&next, "ECHO next");
    ck_assert_str_eq(next.text, "next");
    ck_assert(send_words(&gone, "PING", &failure));
}
END_TEST

START_TEST(a_stopped_server_is_spared_and_found_again)
{
    static struct ask asks[40];
    enum redis_failure failure = REDIS_ANSWERED;
    redis_server_start(&server, NULL);
    open_link("", 20000);
    must_come_up();
    kill(server.pid, SIGSTOP);
    size_t sent = 0;
    while (sent < 40 && send_words(&asks[sent], "PING", &failure)) {
        redis_loop_run(&loop, &asks[sent].done, LONG_MS);
        ck_assert(asks[sent].done);
        sent++;
    }
    ck_assert_uint_lt(sent, 40);
    ck_assert_int_eq(failure, REDIS_DOWN);
    must_go_down("");
    redis_loop_run(&loop, NULL, 1500); /* long enough for the connection to be given up */
    ck_assert(!is_up);
    kill(server.pid, SIGCONT);
    must_come_up();
    ck_assert_uint_eq(downs, 1);
}
END_TEST

START_TEST(too_much_is_refused)
{
    static struct ask asks[40];
    enum redis_failure failure;
    char text[256];
    static char big[5 << 20];
    redis_server_start(&server, NULL);
    snprintf(text, sizeof(text), "%s", server.path);
    open_url(text, SLOW, 10);
    must_come_up();
    for (size_t i = 0; i < 10; i++)
        ck_assert(send_words(&asks[i], "PING", &failure));
    ck_assert(!send_words(&asks[10], "PING", &failure));
    ck_assert_int_eq(failure, REDIS_FULL);
    ck_assert(redis_loop_run(&loop, &asks[9].done, LONG_MS));
    asks[11] = (struct ask){.command.on_reply = on_reply};
    const struct span pieces[] = {SPAN("ECHO"), {big, sizeof(big)}};
    ck_assert(!redis_link_send(up_link, &asks[11].command, pieces, 2, &failure));
    ck_assert_int_eq(failure, REDIS_FULL);
    ask_words(&asks[12], "PING");
    struct redis_link_counts counts;
    redis_link_count(up_link, &counts);
    ck_assert_uint_eq(counts.failures[REDIS_FULL], 2);
}
END_TEST

START_TEST(passwords)
{
    struct ask ask;
    redis_server_start(&server, (const char *const[]){"--requirepass", "s3cret", NULL});
    open_link(":wrong@", SLOW);
    must_go_down("refuses the password");
    ck_assert_ptr_null(strstr(why, "wrong@"));
    redis_link_destroy(up_link);
    redis_url_dispose(&url);
    is_down = false;
    open_link("", SLOW);
    must_go_down("wants a password");
    redis_link_destroy(up_link);
    redis_url_dispose(&url);
    open_link(":s3cret@", SLOW);
    must_come_up();
    redis_link_destroy(up_link);
    redis_url_dispose(&url);
    is_up = false;
    open_link("default:s3cret@", SLOW);
    must_come_up();
    ask_words(&ask, "PING");
}
END_TEST

START_TEST(a_password_that_it_has_not)
{
    redis_server_start(&server, NULL);
    open_link(":s3cret@", SLOW);
    must_go_down("has no password");
}
END_TEST

START_TEST(a_user_who_may_do_little)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    redis_server_tell(&server, "ACL SETUSER u on >p ~* +get +set +evalsha +eval +ping +select");
    open_link("u:p@", SLOW);
    must_come_up();
    ask_words(&ask, "INCR n");
    ck_assert_int_eq(ask.failure, REDIS_REFUSED);
    run_script(&ask, 2, "n", "5"); /* SCRIPT LOAD was forbidden: EVAL */
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    ck_assert_int_eq(ask.failure, REDIS_ANSWERED);
    ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(a_replica_is_no_master)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    redis_server_tell(&server, "REPLICAOF 127.0.0.1 1");
    ask_words(&ask, "SET a b");
    ck_assert_int_eq(ask.failure, REDIS_REFUSED);
    ck_assert(!redis_link_up(up_link));
    ck_assert_ptr_nonnull(strstr(why, "READONLY"));
    redis_loop_run(&loop, NULL, 300);
    ck_assert(!redis_link_up(up_link));
    redis_server_tell(&server, "REPLICAOF NO ONE");
    must_come_up();
}
END_TEST

START_TEST(a_replica_from_the_start)
{
    redis_server_start(&server, (const char *const[]){"--replicaof", "127.0.0.1", "1", NULL});
    open_link("", SLOW);
    must_go_down("replica");
}
END_TEST

START_TEST(a_cluster_node)
{
    redis_server_start(&server, (const char *const[]){"--cluster-enabled", "yes", "--port", "0", NULL});
    char text[256];
    snprintf(text, sizeof(text), "%s", server.path);
    open_url(text, SLOW, 0);
    must_go_down("Cluster");
    snprintf(text, sizeof(text), "%s/nodes.conf", server.dir);
    unlink(text);
}
END_TEST

START_TEST(out_of_memory_is_a_refusal_and_no_loss)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    redis_server_tell(&server, "CONFIG SET maxmemory 1");
    ask_words(&ask, "SET a b");
    ck_assert_int_eq(ask.failure, REDIS_REFUSED);
    run_script(&ask, 2, "a", "b");
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    ck_assert_int_eq(ask.failure, REDIS_REFUSED);
    ck_assert(redis_link_up(up_link));
    ask_words(&ask, "GET a");
    ck_assert_int_eq(ask.failure, REDIS_ANSWERED);
}
END_TEST

START_TEST(nobody_listens)
{
    open_link("", SLOW);
    must_go_down("No such file");
    redis_loop_run(&loop, NULL, 200);
    ck_assert_uint_eq(downs, 1);
    redis_server_start(&server, NULL);
    must_come_up();
}
END_TEST

START_TEST(names_are_resolved)
{
    open_url("redis://localhost:1", SLOW, 0);
    must_go_down("refused");
    redis_link_destroy(up_link);
    redis_url_dispose(&url);
    is_down = false;
    open_url("redis://[::1]:1", SLOW, 0);
    redis_loop_run(&loop, &is_down, LONG_MS);
    ck_assert(is_down);
}
END_TEST

/* ---- servers that misbehave ---- */

/* What the fake says when it has been spoken to, again and again until nobody takes it; then it closes. */
static const struct {
    const char *text;
    size_t times; /* 0: it says nothing and does not close */
    const char *why;
} fakes[] = {
    {"", 0, "does not answer"},
    {"HTTP/1.1 400 Bad Request\r\n\r\n", 1, "Protocol error"},
    {"+OK\r\n", 100000, "does not answer as Redis does"},
    {":1\r\n", 100000, ""},
    {"*2\r\n$6\r\nmaster\r\n:0\r\n", 100000, ""},
    {"*-1\r\n", 100, ""},
    {"-ERR max number of clients reached\r\n", 1, "max number of clients"},
    {"-LOADING Redis is loading the dataset in memory\r\n", 5, "LOADING"},
    {"-BUSY Redis is busy running a script\r\n", 5, "BUSY"},
    {"-MOVED 3999 127.0.0.1:6381\r\n", 5, "MOVED"},
    {"*2147483647\r\n", 1, "too large"},
    {"*1000000\r\n*1000000\r\n*1000000\r\n", 1, "too large"},
    {"*1\r\n", 100, ""},
    {"*1000\r\n$-1\r\n", 1000000, ""},
    {"$1073741824\r\n", 1, "end"},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1000000, ""},
    {"+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1000000, "too large"},
    {"$-2\r\n", 1, ""},
    {"$99999999999999999999999\r\n", 1, ""},
    {":99999999999999999999999\r\n", 1, ""},
    {"*", 1, ""},
    {"\r\n\r\n\r\n", 1, ""},
};

static void *serve_fake(void *arg)
{
    int listener = *(int *)arg, which = ((int *)arg)[1], fd;
    char heard[4096];
    static char said[65536];
    size_t len = 0, text_len = strlen(fakes[which].text), left = fakes[which].times;
    while (left != 0 && len + text_len < sizeof(said) && text_len != 0 && len / text_len < left) {
        memcpy(said + len, fakes[which].text, text_len);
        len += text_len;
    }
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) != -1) {
        if (read(fd, heard, sizeof(heard)) <= 0 || fakes[which].times == 0) {
            while (read(fd, heard, sizeof(heard)) > 0)
                ;
            close(fd);
            continue;
        }
        size_t bytes = fakes[which].times * text_len;
        if (strcmp(fakes[which].text, "$1073741824\r\n") == 0) { /* and then its content */
            (void)!write(fd, said, text_len);
            memset(said, 'x', sizeof(said));
            bytes = (size_t)1 << 30;
            len = sizeof(said);
        }
        while (bytes != 0) {
            ssize_t written = write(fd, said, len < bytes ? len : bytes);
            if (written <= 0)
                break;
            bytes -= (size_t)written < bytes ? (size_t)written : bytes;
            if ((size_t)written % text_len != 0 && len != sizeof(said))
                break;
        }
        close(fd);
    }
    return NULL;
}

static size_t resident_kib(void)
{
    unsigned long size = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    ck_assert_int_eq(fscanf(file, "%lu %lu", &size, &pages), 2);
    fclose(file);
    return pages * 4;
}

START_TEST(fakes_do_no_harm)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int arg[2] = {socket(AF_UNIX, SOCK_STREAM, 0), _i};
    pthread_t thread;
    memcpy(address.sun_path, server.path, sizeof(server.path));
    ck_assert_int_eq(bind(arg[0], (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(arg[0], 16), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, serve_fake, arg), 0);
    open_link(":s3cret@", 50000);
    size_t before = resident_kib();
    must_go_down("");
    ck_assert_msg(!is_up, "%s", fakes[_i].text);
    redis_loop_run(&loop, NULL, 300); /* several attempts */
    ck_assert_uint_lt(resident_kib(), before + 200 * 1024);
    ck_assert_uint_eq(ups, 0);
    ck_assert_ptr_null(strstr(why, "s3cret"));
    redis_link_destroy(up_link);
    up_link = NULL;
    shutdown(arg[0], SHUT_RDWR);
    pthread_join(thread, NULL);
    close(arg[0]);
}
END_TEST

/* Half sense: what a Redis says, in any order, with a byte wrong now and then. */
static void *serve_nonsense(void *arg)
{
    static const char *const words[] = {
        "+OK\r\n",          ":1\r\n",        "$-1\r\n",    "*-1\r\n",    "*0\r\n", "$0\r\n\r\n",
        "$6\r\nmaster\r\n", "*3\r\n",        "*1\r\n",     "-ERR x\r\n", "$5\r\n", "*2\r\n",
        "-NOSCRIPT x\r\n",  "-READONLY\r\n", "-OOM x\r\n", "+PONG\r\n",  "-\r\n",  "+\r\n"};
    int listener = *(int *)arg, fd;
    unsigned seed = (unsigned)((int *)arg)[1];
    char heard[4096], said[8192];
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) != -1) {
        for (bool first = true; read(fd, heard, sizeof(heard)) > 0; first = false) {
            size_t len = 0;
            bool greet = first && rand_r(&seed) % 8 != 0; /* as a master, so that commands are sent to it */
            if (greet)
                len = (size_t)sprintf(said, "%s", "+OK\r\n+OK\r\n*1\r\n$6\r\nmaster\r\n$0\r\n\r\n+x\r\n+x\r\n+x\r\n");
            for (unsigned i = greet ? 0 : (unsigned)rand_r(&seed) % 6; i != 0; i--)
                len += (size_t)sprintf(said + len, "%s",
                                       words[(size_t)rand_r(&seed) % (sizeof(words) / sizeof(words[0]))]);
            if (len != 0 && !greet && rand_r(&seed) % 8 == 0)
                said[(size_t)rand_r(&seed) % len] = (char)rand_r(&seed);
            if (len != 0 && write(fd, said, len) != (ssize_t)len)
                break;
            if (!greet && rand_r(&seed) % 16 == 0)
                break;
        }
        close(fd);
    }
    return NULL;
}

START_TEST(nonsense_does_no_harm)
{
    static struct ask asks[4096];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int arg[2] = {socket(AF_UNIX, SOCK_STREAM, 0), _i};
    pthread_t thread;
    size_t sent = 0;
    memcpy(address.sun_path, server.path, sizeof(server.path));
    ck_assert_int_eq(bind(arg[0], (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(arg[0], 16), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, serve_nonsense, arg), 0);
    open_link("", 20000);
    for (int i = 0; i < 120; i++) {
        enum redis_failure failure;
        redis_loop_run(&loop, NULL, 5);
        for (int n = 0; n < 3 && redis_link_up(up_link) && sent + 3 < 4096; n++) {
            if (send_words(&asks[sent], "GET k", &failure))
                sent++;
            asks[sent] = (struct ask){.command.on_reply = on_reply};
            if (redis_link_run(up_link, &asks[sent].command, 1, (struct span[]){SPAN("k"), SPAN("v")}, 1, 2, &failure))
                sent++;
        }
    }
    redis_loop_run(&loop, NULL, 200); /* beyond the last deadline */
    redis_link_destroy(up_link);
    up_link = NULL;
    shutdown(arg[0], SHUT_RDWR);
    pthread_join(thread, NULL);
    close(arg[0]);
    for (size_t i = 0; i < sent; i++) /* each was answered or failed, once */
        ck_assert_uint_eq(asks[i].calls, 1);
    ck_assert_uint_gt(sent, 0);
}
END_TEST

START_TEST(why_fakes_are_not_up)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int arg[2] = {socket(AF_UNIX, SOCK_STREAM, 0), _i};
    pthread_t thread;
    memcpy(address.sun_path, server.path, sizeof(server.path));
    ck_assert_int_eq(bind(arg[0], (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(arg[0], 16), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, serve_fake, arg), 0);
    open_url(server.path, 50000, 0);
    must_go_down(strcmp(fakes[_i].why, "end") == 0 ? "too large" : fakes[_i].why);
    redis_link_destroy(up_link);
    up_link = NULL;
    shutdown(arg[0], SHUT_RDWR);
    pthread_join(thread, NULL);
    close(arg[0]);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("redis_link");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, commands_and_replies);
    tcase_add_test(tc, many_are_pipelined_in_order);
    tcase_add_test(tc, binary_pieces_arrive_whole);
    tcase_add_test(tc, lost_scripts_come_back_once);
    tcase_add_test(tc, a_loss_fails_what_waits_and_is_mended);
    tcase_add_test(tc, killed_and_restarted_it_is_found_again);
    tcase_add_test(tc, late_replies_are_dropped);
    tcase_add_test(tc, a_cancelled_command_is_never_called);
    tcase_add_test(tc, a_stopped_server_is_spared_and_found_again);
    tcase_add_test(tc, too_much_is_refused);
    tcase_add_test(tc, passwords);
    tcase_add_test(tc, a_password_that_it_has_not);
    tcase_add_test(tc, a_user_who_may_do_little);
    tcase_add_test(tc, a_replica_is_no_master);
    tcase_add_test(tc, a_replica_from_the_start);
    tcase_add_test(tc, a_cluster_node);
    tcase_add_test(tc, out_of_memory_is_a_refusal_and_no_loss);
    tcase_add_test(tc, nobody_listens);
    tcase_add_test(tc, names_are_resolved);
    tcase_add_loop_test(tc, fakes_do_no_harm, 0, (int)(sizeof(fakes) / sizeof(fakes[0])));
    tcase_add_loop_test(tc, why_fakes_are_not_up, 0, (int)(sizeof(fakes) / sizeof(fakes[0])));
    tcase_add_loop_test(tc, nonsense_does_no_harm, 0, 4);
    return run_suite("redis_link", tc);
}
