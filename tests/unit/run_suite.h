/* The end of every unit test: Check, and what its main returns. */
#ifndef WEIR_TESTS_RUN_SUITE_H
#define WEIR_TESTS_RUN_SUITE_H

#include <check.h>

/* Runs the tests of one case, as CK_VERBOSITY says. Returns the program's exit status. */
static inline int run_suite(const char *name, TCase *tests)
{
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
