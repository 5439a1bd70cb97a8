// qemu-img bench as a contender: QEMU's block layer over libiscsi. It takes a number of requests, knows one session,
// strides through the disk instead of choosing at random, and tells only how long it took; so a short run says how many
// requests fill the time, and CPU time is that of the child process less that of one which sends a single request.
// The latency printed is the mean.
#include "Measuring.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct outcome {
    double seconds, user_us, system_us;
};

static double microseconds(struct timeval t) { return (double)t.tv_sec * 1e6 + (double)t.tv_usec; }

static struct outcome run(const struct options *options, unsigned long requests)
{
    char count[32], depth[32], size[32], step[32];
    snprintf(count, sizeof count, "%lu", requests);
    snprintf(depth, sizeof depth, "%u", options->depth);
    snprintf(size, sizeof size, "%u", options->block_size);
    // Not in order: an odd number of blocks from one to the next, wrapping at the end of the disk.
    snprintf(step, sizeof step, "%lu", options->sequential ? (unsigned long)options->block_size : 257ul * options->block_size);
    char *arguments[] = {"qemu-img", "bench", "-f", "raw", "-t", "none", "-n", "-c", count, "-d", depth, "-s", size,
                         "-S", step, options->write_percent == 100 ? "-w" : "-q", "-q", (char *)options->urls[0], NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t child;
    uint64_t began = monotonic_ns();
    if (posix_spawnp(&child, "qemu-img", &actions, NULL, arguments, environ) != 0) {
        fprintf(stderr, "qemu-client: cannot run qemu-img (Debian: qemu-utils, qemu-block-extra)\n");
        exit(1);
    }
    posix_spawn_file_actions_destroy(&actions);
    int status;
    struct rusage usage;
    if (wait4(child, &status, 0, &usage) != child || status != 0) {
        fprintf(stderr, "qemu-client: qemu-img failed\n");
        exit(1);
    }
    return (struct outcome){(double)(monotonic_ns() - began) / 1e9, microseconds(usage.ru_utime), microseconds(usage.ru_stime)};
}

static struct outcome less(struct outcome a, struct outcome b)
{
    return (struct outcome){a.seconds - b.seconds, a.user_us - b.user_us, a.system_us - b.system_us};
}

int main(int argc, char **argv)
{
    struct options options = parse_options(argc, argv, "iscsi://PORTAL/IQN/LUN");
    if (options.write_percent != 0 && options.write_percent != 100) {
        fprintf(stderr, "qemu-client: qemu-img reads or writes, it does not mix\n");
        return 64;
    }
    struct outcome start = run(&options, 1);
    unsigned long requests = 100;
    struct outcome trial = less(run(&options, requests), start);
    while (trial.seconds < options.seconds / 10 && requests < 100000000) {
        requests *= 4;
        trial = less(run(&options, requests), start);
    }
    requests = (unsigned long)((double)requests * options.seconds / trial.seconds) + 1;
    struct outcome result = less(run(&options, requests), start);
    double count = (double)requests, mean = result.seconds * 1e6 * options.depth / count;
    printf("{\"requests\":%lu,\"errors\":0,\"seconds\":%.3f,\"iops\":%.1f,\"mb_per_s\":%.2f,\"cpu_us_per_request\":%.4f,"
           "\"user_us_per_request\":%.4f,\"system_us_per_request\":%.4f,\"latency_us\":{\"p50\":%.2f,\"p99\":%.2f,\"max\":%.2f}}\n",
           requests, result.seconds, count / result.seconds, count * options.block_size / result.seconds / 1e6,
           (result.user_us + result.system_us) / count, result.user_us / count, result.system_us / count, mean, mean, mean);
    return 0;
}
