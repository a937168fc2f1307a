#include "cache/key_maker.h"

static uint64_t state = 1;

static unsigned dice(unsigned sides)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % sides;
}

struct node {
    unsigned kind; /* 0 array, 1 object, else a scalar */
    unsigned scalar, count, names[5];
    struct node *child[5];
};

static struct node *grow_tree(unsigned depth)
{
    struct node *node = calloc(1, sizeof(*node));
    node->kind = depth == 0 ? 2 : dice(4);
    node->scalar = dice(12);
    node->count = node->kind < 2 ? dice(6) : 0;
    unsigned first = dice(7);
    for (unsigned i = 0; i < node->count; i++) {
        node->names[i] = (first + i) % 7;
        node->child[i] = grow_tree(depth - 1);
    }
    return node;
}

static void free_tree(struct node *node)
{
    for (unsigned i = 0; i < node->count; i++)
        free_tree(node->child[i]);
    free(node);
}

static void blanks(struct strbuf *out, bool spaced)
{
    while (spaced && dice(3) == 0)
        strbuf_putc(out, " \t\r\n"[dice(4)]);
}

/* Writes a tree; `shuffled`: members in any order, names escaped or not, blanks anywhere. */
static void write_tree(struct strbuf *out, const struct node *node, bool shuffled)
{
    static const char *const scalars[12] = {"0",    "1",     "1.0",  "-1",      "12",           "null",
                                            "true", "false", "\"\"", "\"a,]\"", "\"\\\\\\\"\"", "\"\\u0061 {\""};
    static const char *const names[7] = {"a", "b", "user", "ab", "", "x\\\"", "metadata"};
    static const char *const escaped[7] = {"\\u0061", "\\u0062",  "\\u0075ser",    "a\\u0062",
                                           "",        "x\\u0022", "metadat\\u0061"};
    unsigned order[5] = {0, 1, 2, 3, 4};
    if (node->kind >= 2) {
        strbuf_puts(out, scalars[node->scalar]);
        return;
    }
    for (unsigned i = node->count; shuffled && node->kind == 1 && i > 1; i--) {
        unsigned j = dice(i), swap = order[j];
        order[j] = order[i - 1];
        order[i - 1] = swap;
    }
    strbuf_putc(out, node->kind == 0 ? '[' : '{');
    blanks(out, shuffled);
    for (unsigned i = 0; i < node->count; i++) {
        unsigned name = node->names[order[i]];
        if (i != 0) {
            strbuf_putc(out, ',');
            blanks(out, shuffled);
        }
        if (node->kind == 1) {
            strbuf_printf(out, "\"%s\"", shuffled && dice(2) ? escaped[name] : names[name]);
            blanks(out, shuffled);
            strbuf_putc(out, ':');
            blanks(out, shuffled);
        }
        write_tree(out, node->child[order[i]], shuffled);
        blanks(out, shuffled);
    }
    strbuf_putc(out, node->kind == 0 ? ']' : '}');
}

/* A tree below a member whose name is never left out. */
static struct cache_key key_of_tree(const struct node *node, bool shuffled)
{
    struct strbuf body;
    struct cache_key key;
    strbuf_init(&body, 1 << 20);
    strbuf_puts(&body, "{\"m\":");
    write_tree(&body, node, shuffled);
    strbuf_putc(&body, '}');
    ck_assert_msg(make(strbuf_span(&body), &key) == CACHE_KEY_MADE, "%s", strbuf_cstr(&body));
    strbuf_dispose(&body);
    return key;
}

/* Changes one node; true if there was one that could be. */
static void change(struct node *node)
{
    while (node->count != 0 && dice(4) != 0)
        node = node->child[dice(node->count)];
    if (node->kind >= 2) {
        node->scalar = (node->scalar + 1 + dice(11)) % 12;
    } else if (node->count == 0) {
        node->kind = 1 - node->kind;
    } else if (node->kind == 1) {
        unsigned i = dice(node->count), used = 0;
        for (unsigned j = 0; j < node->count; j++)
            used |= 1u << node->names[j];
        while ((used & 1u << node->names[i]) != 0)
            node->names[i] = dice(7);
    } else {
        free_tree(node->child[--node->count]);
    }
}

START_TEST(random_trees)
{
    state = (uint64_t)_i + 1;
    for (unsigned round = 0; round < 1500; round++) {
        struct node *node = grow_tree(4);
        struct cache_key plain = key_of_tree(node, false), shuffled = key_of_tree(node, true);
        ck_assert_msg(cache_key_eq(&plain, &shuffled), "seed %d round %u", _i, round);
        change(node);
        struct cache_key changed = key_of_tree(node, true);
        ck_assert_msg(!cache_key_eq(&plain, &changed), "seed %d round %u", _i, round);
        free_tree(node);
    }
}
END_TEST

/* Writes {"a":[…]} of 50 short words; `between` is what stands between the words of one place, "," elsewhere, with
 * blanks: 0 none, 1 one behind each comma, 2 any. */
static struct span word_list(struct strbuf *out, unsigned place, const char *between, int spaced)
{
    static const char *const words[] = {"1", "23", "-4.5", "678901", "1e9", "true", "0/1"};
    strbuf_reset(out);
    strbuf_puts(out, "{\"a\":[");
    for (unsigned i = 0; i < 50; i++) {
        if (i != 0) {
            blanks(out, spaced == 2);
            strbuf_puts(out, i == place ? between : ",");
            if (spaced == 1)
                strbuf_putc(out, ' ');
            blanks(out, spaced == 2);
        }
        strbuf_puts(out, words[(i * i + place % 3 + i / 7) % (i % 9 < 8 ? 4 : COUNT(words))]);
    }
    strbuf_puts(out, "]}");
    return strbuf_span(out);
}

/* Long lists of words are skipped many bytes at a time: each place meets each byte of that. */
START_TEST(word_lists)
{
    struct strbuf body;
    struct cache_key whole, key;
    strbuf_init(&body, 1 << 16);
    for (unsigned place = 0; place < 50; place++) {
        ck_assert_int_eq(make(word_list(&body, place, ",", 0), &whole), CACHE_KEY_MADE);
        for (int spaced = 1; spaced < 12; spaced++) {
            ck_assert_int_eq(make(word_list(&body, place, ",", spaced < 3 ? spaced : 2), &key), CACHE_KEY_MADE);
            ck_assert_msg(cache_key_eq(&whole, &key), "%s", strbuf_cstr(&body));
        }
        for (int spaced = 0; place != 0 && spaced < 3; spaced++) {
            static const char *const wrong[] = {",,", ", ,", " ", "  ", ":", "\"", "]", "{", "\n"};
            for (size_t i = 0; i < COUNT(wrong); i++)
                ck_assert_msg(make(word_list(&body, place, wrong[i], spaced), &key) == CACHE_KEY_INVALID, "%s",
                              strbuf_cstr(&body));
            static const char *const other[] = {"1", ",1,", ",\"\",", ",{},", ",[],"};
            for (size_t i = spaced != 0; i < COUNT(other); i++) {
                ck_assert_msg(make(word_list(&body, place, other[i], spaced), &key) == CACHE_KEY_MADE, "%s",
                              strbuf_cstr(&body));
                ck_assert(!cache_key_eq(&whole, &key));
            }
        }
    }
    strbuf_dispose(&body);
}
END_TEST

/* Whatever is done to the text, nothing is read beyond it (for AddressSanitizer to see). */
START_TEST(damaged_bodies)
{
    static const char text[] =
        "{\"model\": \"m\", \"messages\":[{\"role\":\"user\",\"content\":[{\"te\\u0078t\":\"a\\\"b\","
        "\"n\":[1, 2,3]}]}],\"seed\":1, \"user\":\"u\"}";
    struct cache_key whole = key_of(text), key;
    for (size_t len = 0; len < sizeof(text) - 1; len++)
        ck_assert_int_eq(make((struct span){text, len}, &key), CACHE_KEY_INVALID);
    for (unsigned round = 0; round < 20000; round++) {
        char damaged[sizeof(text)];
        memcpy(damaged, text, sizeof(text));
        for (unsigned n = 1 + dice(3); n != 0; n--)
            damaged[dice(sizeof(text) - 1)] = "\"\\{}[],: \n1eu"[dice(13)];
        make((struct span){damaged, sizeof(text) - 1}, &key);
    }
    key = key_of(text);
    ck_assert(cache_key_eq(&key, &whole));
}
END_TEST

/* `prepare` makes the keyer. */
static TCase *cases(const char *name, void (*prepare)(void))
{
    TCase *tests = tcase_create(name);
    tcase_add_checked_fixture(tests, prepare, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, random_trees, 0, 4);
    tcase_add_test(tests, word_lists);
    tcase_add_test(tests, damaged_bodies);
    return tests;
}

int main(void)
{
    Suite *suite = suite_create("cache key, at random");
    suite_add_tcase(suite, cases("without a secret", setup));
    suite_add_tcase(suite, cases("with a secret", setup_secret));
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
