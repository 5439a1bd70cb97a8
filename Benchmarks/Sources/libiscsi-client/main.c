// libiscsi as a multipath initiator would use it at best: one thread, one context per session, one poll() over all
// of them, requests handed out in turn, data read into place. Prints one line of JSON.
#include "Measuring.h"

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct session {
    struct iscsi_context *context;
    int lun;
};

struct request {
    struct scsi_iovec vector;
    uint64_t started_ns;
};

static struct options options;
static struct session sessions[maximum_sessions];
static struct request requests[maximum_depth];
static unsigned next_session, outstanding;
static uint32_t block_bytes;
static uint64_t slot_count, next_slot; // block_size pieces of the disk
static bool stopping, measuring;

static _Noreturn void fail(const char *what, struct iscsi_context *context)
{
    fprintf(stderr, "libiscsi-client: %s: %s\n", what, context ? iscsi_get_error(context) : "out of memory");
    exit(1);
}

static void issue(struct request *request);

static void completed(struct iscsi_context *context, int status, void *data, void *private)
{
    struct request *request = private;
    struct scsi_task *task = data;
    // The first command after login reports it; it says nothing about the request.
    bool attention = status == SCSI_STATUS_CHECK_CONDITION && task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
    bool failed = status != SCSI_STATUS_GOOD && !attention;
    if (failed)
        fprintf(stderr, "libiscsi-client: status %#x: %s\n", status, iscsi_get_error(context));
    if (measuring && !attention)
        measuring_request(request->started_ns, failed);
    scsi_free_scsi_task(task);
    outstanding--;
    if (failed && !measuring)
        exit(1);
    if (!stopping)
        issue(request);
}

static void issue(struct request *request)
{
    struct session *session = &sessions[next_session];
    next_session = next_session + 1 == options.sessions ? 0 : next_session + 1;
    uint64_t slot = next_random() % slot_count;
    if (options.sequential) {
        slot = next_slot;
        next_slot = next_slot + 1 == slot_count ? 0 : next_slot + 1;
    }
    uint64_t lba = slot * (options.block_size / block_bytes);
    bool writing = options.write_percent > 0 && next_random() % 100 < options.write_percent;
    struct scsi_task *task;
    request->started_ns = monotonic_ns();
    if (writing)
        task = iscsi_write16_iov_task(session->context, session->lun, lba, NULL, options.block_size,
                                      (int)block_bytes, 0, 0, 0, 0, 0, completed, request, &request->vector, 1);
    else
        task = iscsi_read16_iov_task(session->context, session->lun, lba, options.block_size, (int)block_bytes,
                                     0, 0, 0, 0, 0, completed, request, &request->vector, 1);
    if (task == NULL)
        fail("cannot queue a command", session->context);
    outstanding++;
}

static void service(struct session *session, int events)
{
    if (iscsi_service(session->context, events) != 0)
        fail("session lost", session->context);
}

static void run(uint64_t deadline_ns)
{
    struct pollfd descriptors[maximum_sessions];
    while (monotonic_ns() < deadline_ns && !(stopping && outstanding == 0)) {
        for (unsigned i = 0; i < options.sessions; i++) {
            struct iscsi_context *context = sessions[i].context;
            descriptors[i].fd = iscsi_get_fd(context);
            descriptors[i].events = (short)iscsi_which_events(context);
        }
        if (poll(descriptors, options.sessions, 1000) < 0)
            continue;
        for (unsigned i = 0; i < options.sessions; i++)
            if (descriptors[i].revents != 0)
                service(&sessions[i], descriptors[i].revents);
        // What the callbacks queued goes out now: waiting for poll() to say POLLOUT would cost a second poll.
        for (unsigned i = 0; i < options.sessions; i++)
            if (iscsi_which_events(sessions[i].context) & POLLOUT)
                service(&sessions[i], POLLOUT);
    }
}

static void log_in(struct session *session, unsigned number)
{
    struct iscsi_context *context = iscsi_create_context("iqn.2026-11.org.example:libiscsi-client");
    if (context == NULL)
        fail("login", NULL);
    struct iscsi_url *url = iscsi_parse_full_url(context, options.urls[number % options.url_count]);
    if (url == NULL)
        fail("URL", context);
    iscsi_set_isid_random(context, (uint32_t)getpid() << 8 | number, number);
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_targetname(context, url->target);
    iscsi_set_noautoreconnect(context, 1);
    iscsi_set_header_digest(context, options.header_digest ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
    if (iscsi_full_connect_sync(context, url->portal, url->lun) != 0)
        fail("login", context);
    session->context = context;
    session->lun = url->lun;
    iscsi_destroy_url(url);
}

static void read_capacity(struct session *session)
{
    struct scsi_task *task = iscsi_readcapacity16_sync(session->context, session->lun);
    struct scsi_readcapacity16 *capacity =
        task != NULL && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
    if (capacity == NULL)
        fail("READ CAPACITY(16)", session->context);
    block_bytes = capacity->block_length;
    if (block_bytes == 0 || options.block_size % block_bytes != 0)
        fail("the block size is no multiple of the disk's", session->context);
    slot_count = (capacity->returned_lba + 1) / (options.block_size / block_bytes);
    if (slot_count == 0)
        fail("the disk is smaller than a block", session->context);
    scsi_free_scsi_task(task);
}

int main(int argc, char **argv)
{
    options = parse_options(argc, argv, "iscsi://PORTAL/IQN/LUN");
    for (unsigned i = 0; i < options.sessions; i++)
        log_in(&sessions[i], i);
    read_capacity(&sessions[0]);
    for (unsigned i = 0; i < options.depth; i++) {
        requests[i].vector.iov_len = options.block_size;
        if (posix_memalign(&requests[i].vector.iov_base, 4096, options.block_size) != 0)
            fail("buffers", NULL);
        memset(requests[i].vector.iov_base, (int)i + 1, options.block_size);
        issue(&requests[i]);
    }
    run(monotonic_ns() + (uint64_t)(options.ramp_seconds * 1e9));
    measuring = true;
    measuring_begin();
    run(monotonic_ns() + (uint64_t)(options.seconds * 1e9));
    measuring_end();
    measuring_print(options.block_size);

    stopping = true;
    run(monotonic_ns() + 5000000000u);
    for (unsigned i = 0; i < options.sessions; i++) {
        iscsi_logout_sync(sessions[i].context);
        iscsi_destroy_context(sessions[i].context);
    }
    return outstanding == 0 ? 0 : 1;
}
