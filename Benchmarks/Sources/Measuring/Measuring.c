#include "Measuring.h"

#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

// The process whose CPU time is told beside our own, or 0.
static pid_t watched;

static void usage(const char *program, const char *operand)
{
    fprintf(stderr,
            "usage: %s [--sessions N] [--depth N] [--block-size BYTES] [--write-percent N] [--sequential]\n"
            "          [--header-digest] [--seconds S] [--ramp S] [--watch PID] [--busy-poll MICROSECONDS]\n"
            "          [--adaptive-poll MICROSECONDS] [--coalescing MICROSECONDS] [--api batch|async|async-elsewhere] %s...\n",
            program, operand);
    exit(64);
}

static double number(const char *text, double least, double most, const char *program, const char *operand)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != 0 || !(value >= least && value <= most)) {
        fprintf(stderr, "%s: %s is not a number from %g to %g\n", program, text, least, most);
        usage(program, operand);
    }
    return value;
}

struct options parse_options(int argc, char **argv, const char *operand)
{
    static const struct option names[] = {
        {"sessions", required_argument, 0, 's'},  {"depth", required_argument, 0, 'd'},
        {"block-size", required_argument, 0, 'b'}, {"write-percent", required_argument, 0, 'w'},
        {"sequential", no_argument, 0, 'q'},       {"header-digest", no_argument, 0, 'h'},
        {"seconds", required_argument, 0, 't'},    {"ramp", required_argument, 0, 'r'},
        {"watch", required_argument, 0, 'o'},
        {"busy-poll", required_argument, 0, 'p'},   {"adaptive-poll", required_argument, 0, 'a'},
        {"coalescing", required_argument, 0, 'c'},  {"api", required_argument, 0, 'i'},
        {0, 0, 0, 0},
    };
    struct options o = {.depth = 32, .block_size = 4096, .seconds = 3, .ramp_seconds = 0.5, .adaptive_poll_us = -1, .coalescing_us = -1};
    int letter;
    while ((letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (letter) {
        case 's': o.sessions = (unsigned)number(optarg, 1, maximum_sessions, argv[0], operand); break;
        case 'd': o.depth = (unsigned)number(optarg, 1, maximum_depth, argv[0], operand); break;
        case 'b': o.block_size = (unsigned)number(optarg, 512, 1 << 20, argv[0], operand); break;
        case 'w': o.write_percent = (unsigned)number(optarg, 0, 100, argv[0], operand); break;
        case 'q': o.sequential = true; break;
        case 'h': o.header_digest = true; break;
        case 't': o.seconds = number(optarg, 0.01, 86400, argv[0], operand); break;
        case 'r': o.ramp_seconds = number(optarg, 0, 3600, argv[0], operand); break;
        case 'o': watched = (pid_t)number(optarg, 1, 1 << 22, argv[0], operand); break;
        case 'p': o.busy_poll_us = (unsigned)number(optarg, 0, 1000000, argv[0], operand); break;
        case 'a': o.adaptive_poll_us = (int)number(optarg, 0, 1000000, argv[0], operand); break;
        case 'c': o.coalescing_us = (int)number(optarg, 0, 1000000, argv[0], operand); break;
        case 'i':
            if (strcmp(optarg, "batch") == 0)
                o.api = api_batch;
            else if (strcmp(optarg, "async") == 0)
                o.api = api_async;
            else if (strcmp(optarg, "async-elsewhere") == 0)
                o.api = api_async_elsewhere;
            else
                usage(argv[0], operand);
            break;
        default: usage(argv[0], operand);
        }
    }
    for (int i = optind; i < argc && o.url_count < maximum_sessions; i++)
        o.urls[o.url_count++] = argv[i];
    if (o.url_count == 0)
        usage(argv[0], operand);
    if (o.sessions == 0)
        o.sessions = o.url_count;
    return o;
}

uint64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

bool run_on_processor(unsigned number)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(number, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

uint64_t next_random(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15u;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1du;
}

// Latencies by power of two, each split in 32: within 3%.
enum { split_bits = 5, split = 1 << split_bits, bucket_count = 64 << split_bits };
static uint64_t buckets[bucket_count];
static uint64_t requests, errors, longest, began, ended, watched_began, watched_ended;
static struct rusage usage_began, usage_ended;

static unsigned bucket_of(uint64_t ns)
{
    if (ns < split)
        return (unsigned)ns;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    return ((exponent - split_bits + 1) << split_bits) | ((ns >> (exponent - split_bits)) & (split - 1));
}

// The middle of a bucket's range.
static double bucket_ns(unsigned bucket)
{
    if (bucket < split)
        return bucket;
    unsigned shift = (bucket >> split_bits) - 1;
    uint64_t least = (uint64_t)(split | (bucket & (split - 1))) << shift;
    return (double)least + (double)((uint64_t)1 << shift) / 2;
}

static double percentile_us(double fraction)
{
    uint64_t total = 0, wanted, seen = 0;
    for (unsigned i = 0; i < bucket_count; i++)
        total += buckets[i];
    wanted = (uint64_t)((double)total * fraction);
    for (unsigned i = 0; i < bucket_count; i++)
        if ((seen += buckets[i]) > wanted)
            return bucket_ns(i) / 1000;
    return 0;
}

// Of all threads of the watched process, to the nanosecond.
static uint64_t watched_ns(void)
{
    clockid_t clock;
    struct timespec t = {0, 0};
    if (watched != 0 && (clock_getcpuclockid(watched, &clock) != 0 || clock_gettime(clock, &t) != 0)) {
        fprintf(stderr, "process %d cannot be watched\n", (int)watched);
        exit(1);
    }
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void measuring_begin(void)
{
    memset(buckets, 0, sizeof buckets);
    requests = errors = longest = 0;
    watched_began = watched_ns();
    getrusage(RUSAGE_SELF, &usage_began);
    began = monotonic_ns();
}

void measuring_request(uint64_t started_ns, bool failed)
{
    uint64_t latency = monotonic_ns() - started_ns;
    if (failed) {
        errors++;
        return;
    }
    requests++;
    buckets[bucket_of(latency)]++;
    if (latency > longest)
        longest = latency;
}

void measuring_end(void)
{
    ended = monotonic_ns();
    getrusage(RUSAGE_SELF, &usage_ended);
    watched_ended = watched_ns();
}

uint64_t measuring_requests(void) { return requests; }

static double microseconds(struct timeval from, struct timeval to)
{
    return (double)(to.tv_sec - from.tv_sec) * 1e6 + (double)(to.tv_usec - from.tv_usec);
}

void measuring_print(unsigned block_size)
{
    double seconds = (double)(ended - began) / 1e9, count = requests > 0 ? (double)requests : 1;
    double user = microseconds(usage_began.ru_utime, usage_ended.ru_utime) / count;
    double system = microseconds(usage_began.ru_stime, usage_ended.ru_stime) / count;
    printf("{\"requests\":%llu,\"errors\":%llu,\"seconds\":%.3f,\"iops\":%.1f,\"mb_per_s\":%.2f,"
           "\"cpu_us_per_request\":%.4f,\"user_us_per_request\":%.4f,\"system_us_per_request\":%.4f,"
           "\"watched_cpu_us_per_request\":%.4f,\"latency_us\":{\"p50\":%.2f,\"p99\":%.2f,\"max\":%.2f}}\n",
           (unsigned long long)requests, (unsigned long long)errors, seconds, (double)requests / seconds,
           (double)requests * block_size / seconds / 1e6, user + system, user, system,
           (double)(watched_ended - watched_began) / 1000 / count, percentile_us(.5), percentile_us(.99), (double)longest / 1000);
}
