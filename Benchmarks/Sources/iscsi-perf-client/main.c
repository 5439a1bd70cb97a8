// iscsi-perf (Debian: libiscsi-bin) as a contender: libiscsi's own measuring program. It only reads, through one session,
// for whole seconds, in blocks of the disk's; it prints its mean rate, not how many requests that were, and no latency.
// CPU time is that of the child process, login included. The latency printed is the mean.
#include "Measuring.h"

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static _Noreturn void fail(const char *what, const char *detail)
{
    fprintf(stderr, "iscsi-perf-client: %s%s%s\n", what, *detail ? ":\n" : "", detail);
    exit(1);
}

static double microseconds(struct timeval t) { return (double)t.tv_sec * 1e6 + (double)t.tv_usec; }

// The disk's block length, in which iscsi-perf counts.
static unsigned block_bytes(const char *address)
{
    struct iscsi_context *context = iscsi_create_context("iqn.2026-11.org.example:iscsi-perf-client");
    struct iscsi_url *url = context != NULL ? iscsi_parse_full_url(context, address) : NULL;
    if (url == NULL)
        fail("URL", context != NULL ? iscsi_get_error(context) : "");
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_targetname(context, url->target);
    if (iscsi_full_connect_sync(context, url->portal, url->lun) != 0)
        fail("login", iscsi_get_error(context));
    struct scsi_task *task = iscsi_readcapacity16_sync(context, url->lun);
    struct scsi_readcapacity16 *capacity =
        task != NULL && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
    if (capacity == NULL || capacity->block_length == 0)
        fail("READ CAPACITY(16)", iscsi_get_error(context));
    unsigned length = capacity->block_length;
    scsi_free_scsi_task(task);
    iscsi_logout_sync(context);
    iscsi_destroy_url(url);
    iscsi_destroy_context(context);
    return length;
}

// Runs it to its end; what it printed, and what it cost.
static char *run(char **arguments, struct rusage *usage)
{
    static char text[1 << 16];
    int ends[2], status;
    if (pipe(ends) != 0)
        fail("pipe", "");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    pid_t child;
    if (posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ) != 0)
        fail("cannot run iscsi-perf (Debian: libiscsi-bin)", "");
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)got;
    text[length] = 0;
    close(ends[0]);
    if (wait4(child, &status, 0, usage) != child || status != 0)
        fail("iscsi-perf failed", text);
    return text;
}

// The last of "iops average N" in the text: that over the whole time.
static double mean_iops(const char *text)
{
    static const char words[] = "iops average ";
    const char *last = NULL;
    for (const char *at = text; (at = strstr(at, words)) != NULL; at++)
        last = at;
    double value = last != NULL ? strtod(last + strlen(words), NULL) : 0;
    if (!(value > 0) || strstr(text, "failed") != NULL)
        fail("iscsi-perf did not say how many requests it made", text);
    return value;
}

int main(int argc, char **argv)
{
    struct options options = parse_options(argc, argv, "iscsi://PORTAL/IQN/LUN");
    if (options.write_percent != 0) {
        fprintf(stderr, "iscsi-perf-client: iscsi-perf only reads\n");
        return 64;
    }
    char address[512];
    int length = snprintf(address, sizeof address, "%s%s", options.urls[0], options.header_digest ? "?header_digest=crc32c" : "");
    if (length >= (int)sizeof address)
        fail("URL", "it is too long");
    unsigned unit = block_bytes(address);
    if (options.block_size % unit != 0)
        fail("the block size is no multiple of the disk's", "");
    char depth[32], blocks[32], seconds[32];
    unsigned long whole = (unsigned long)fmax(1, round(options.seconds));
    snprintf(depth, sizeof depth, "%u", options.depth);
    snprintf(blocks, sizeof blocks, "%u", options.block_size / unit);
    snprintf(seconds, sizeof seconds, "%lu", whole);
    char *arguments[] = {"iscsi-perf", "-m", depth, "-b", blocks, "-t", seconds, address, options.sequential ? NULL : "-r", NULL};
    struct rusage usage;
    double iops = mean_iops(run(arguments, &usage)), count = iops * (double)whole;
    double user = microseconds(usage.ru_utime) / count, system = microseconds(usage.ru_stime) / count;
    double mean = 1e6 * options.depth / iops;
    printf("{\"requests\":%.0f,\"errors\":0,\"seconds\":%lu,\"iops\":%.1f,\"mb_per_s\":%.2f,\"cpu_us_per_request\":%.4f,"
           "\"user_us_per_request\":%.4f,\"system_us_per_request\":%.4f,\"latency_us\":{\"p50\":%.2f,\"p99\":%.2f,\"max\":%.2f}}\n",
           count, whole, iops, iops * options.block_size / 1e6, user + system, user, system, mean, mean, mean);
    return 0;
}
