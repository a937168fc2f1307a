/* Servers that are no Redis, or that misbehave. */
#include "redis_link_opener.h"
#include <pthread.h>

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

/* Somebody who is no Redis, at the server's socket. */
struct stranger {
    int arg[2]; /* for its thread: the listening socket, and which of its kind it is */
    pthread_t thread;
};

static void start(struct stranger *stranger, void *(*serve)(void *), int which)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    stranger->arg[0] = socket(AF_UNIX, SOCK_STREAM, 0);
    stranger->arg[1] = which;
    memcpy(address.sun_path, server.path, sizeof(server.path));
    ck_assert_int_eq(bind(stranger->arg[0], (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(stranger->arg[0], 16), 0);
    ck_assert_int_eq(pthread_create(&stranger->thread, NULL, serve, stranger->arg), 0);
}

/* Ends the link first, so that its thread hears of it. */
static void stop(struct stranger *stranger)
{
    redis_link_destroy(up_link);
    up_link = NULL;
    shutdown(stranger->arg[0], SHUT_RDWR);
    pthread_join(stranger->thread, NULL);
    close(stranger->arg[0]);
}

START_TEST(fakes_do_no_harm)
{
    struct stranger stranger;
    start(&stranger, serve_fake, _i);
    open_link(":s3cret@", 50000);
    size_t before = resident_kib();
    must_go_down("");
    ck_assert_msg(!is_up, "%s", fakes[_i].text);
    redis_loop_run(&loop, NULL, 300); /* several attempts */
    ck_assert_uint_lt(resident_kib(), before + 200 * 1024);
    ck_assert_uint_eq(ups, 0);
    ck_assert_ptr_null(strstr(why, "s3cret"));
    stop(&stranger);
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
    size_t sent = 0;
    struct stranger stranger;
    start(&stranger, serve_nonsense, _i);
    open_link("", 20000);
    for (int i = 0; i < 120 || (sent == 0 && i < 4000); i++) {
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
    stop(&stranger);
    for (size_t i = 0; i < sent; i++) /* each was answered or failed, once */
        ck_assert_uint_eq(asks[i].calls, 1);
    ck_assert_uint_gt(sent, 0);
}
END_TEST

START_TEST(why_fakes_are_not_up)
{
    struct stranger stranger;
    start(&stranger, serve_fake, _i);
    /* Who says something is heard to its end, on a busy machine too. */
    open_url(server.path, fakes[_i].times == 0 ? 50000 : 4000000, 0);
    must_go_down(strcmp(fakes[_i].why, "end") == 0 ? "too large" : fakes[_i].why);
    stop(&stranger);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("redis_link_fakes");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, fakes_do_no_harm, 0, (int)(sizeof(fakes) / sizeof(fakes[0])));
    tcase_add_loop_test(tc, why_fakes_are_not_up, 0, (int)(sizeof(fakes) / sizeof(fakes[0])));
    tcase_add_loop_test(tc, nonsense_does_no_harm, 0, 4);
    return run_suite("redis_link_fakes", tc);
}
