#include "roles.h"
int role_bench(int argc,char**argv){(void)argc;(void)argv;return EXIT_USAGE;}
