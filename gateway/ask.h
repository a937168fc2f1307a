/* `weir ask`: puts a question to a running gateway and prints the answer as it comes. Main thread only. */
#ifndef WEIR_GATEWAY_ASK_H
#define WEIR_GATEWAY_ASK_H

/* The command (see gateway/cli.h). Exit status: 0 the answer came whole, 1 it did not, 2 a wrong call; Ctrl-C ends the
 * process with 130. */
int ask_main(int argc, char **argv);

#endif
