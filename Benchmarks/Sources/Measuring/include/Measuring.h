// What the C clients have in common: options, clock, CPU time, latencies, and the line they print.
#ifndef MEASURING_H
#define MEASURING_H

#include <stdbool.h>
#include <stdint.h>

enum { maximum_sessions = 64, maximum_depth = 4096 };

// How mpio-client asks: batches in, batches out; or one task for each request under way, on the reactor's thread
// or on Swift concurrency's own.
enum api { api_batch, api_async, api_async_elsewhere };

struct options {
    const char *urls[maximum_sessions]; // what stands after the options
    unsigned url_count;
    unsigned sessions;                  // 0: one for each URL
    unsigned depth;                     // requests outstanding over all sessions
    unsigned block_size;                // bytes per request
    unsigned write_percent;
    bool sequential;
    bool header_digest;
    double seconds;
    double ramp_seconds;                // run before it counts
    // mpio-client only:
    unsigned busy_poll_us;              // look for completions so long before sleeping
    int adaptive_poll_us;               // the same where it pays; -1: as the library does by default
    int coalescing_us;                  // how long answers may gather; -1: as the library does by default
    enum api api;
};

// Reads the command line; prints usage and exits with 64 where it is wrong.
struct options parse_options(int argc, char **argv, const char *operand);

uint64_t monotonic_ns(void);

// CPU time of this process, user and system.
double cpu_seconds(void);

// Binds the calling thread, and those that it makes from now on, to one processor.
bool run_on_processor(unsigned number);

// xorshift64*: the same sequence in every run.
uint64_t next_random(void);

// Counts of the interval between measuring_begin and measuring_end.
void measuring_begin(void);
void measuring_request(uint64_t started_ns, bool failed);
void measuring_end(void);

// Requests that succeeded in that interval.
uint64_t measuring_requests(void);

// {"requests":…,"errors":…,"seconds":…,"iops":…,"mb_per_s":…,"cpu_us_per_request":…,"latency_us":{…},…}, with
// "watched_cpu_us_per_request" for the process that --watch names (0 without one).
void measuring_print(unsigned block_size);

#endif
