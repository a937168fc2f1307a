#include "gateway/cli.h"
#include "gateway/handover.h"

int main(int argc, char **argv)
{
    handover_remember(argc, argv);
    return cli_main(argc, argv);
}
