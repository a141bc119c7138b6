/* A program for tests of devices: does what its first argument says. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void sleep_s(double s) {
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const char *arg = argc > 2 ? argv[2] : "0";
    if (strcmp(what, "args") == 0) { /* each argument on a line */
        for (int i = 2; i < argc; i++)
            puts(argv[i]);
    } else if (strcmp(what, "exit") == 0) {
        fputs("probe: leaving\n", stderr);
        return atoi(arg);
    } else if (strcmp(what, "signal") == 0) {
        raise(atoi(arg));
    } else if (strcmp(what, "lines") == 0) { /* lines N SECONDS: N lines with pauses */
        for (int i = 0; i < atoi(arg); i++) {
            printf("line %d\n", i);
            fflush(stdout);
            sleep_s(argc > 3 ? atof(argv[3]) : 0);
        }
    } else if (strcmp(what, "spam") == 0) { /* spam BYTES: one long line; 0 = short lines for ever */
        long n = atol(arg);
        for (long i = 0; n == 0 || i < n; i++)
            if (putchar(n == 0 && i % 64 == 63 ? '\n' : 'x') == EOF)
                return 1;
    } else if (strcmp(what, "child") == 0) { /* child FILE: a child that touches FILE after 2 s; both hang on */
        if (fork() == 0) {
            sleep_s(2);
            FILE *f = fopen(arg, "w");
            if (f)
                fclose(f);
            sleep_s(60);
            return 0;
        }
        puts("started");
        fflush(stdout);
        sleep_s(60);
    } else if (strcmp(what, "daemon") == 0) { /* ends at once; a child keeps stdout open */
        puts("done");
        fflush(stdout);
        if (fork() == 0)
            sleep_s(60);
    } else if (strcmp(what, "torn") == 0) {
        fputs("whole\ntorn", stdout);
    }
    return 0;
}
