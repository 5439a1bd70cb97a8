// The floor under every initiator: requests of an iSCSI PDU's shape (48 bytes, answered by 48 bytes and the data)
// over bare sockets and epoll, data read into place. What an initiator costs beyond this is its own.
// Prints one line of JSON.
#include "Measuring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { header_bytes = 48, spill_bytes = 1 << 18 };

struct header {
    uint32_t tag;
    uint32_t read_bytes;
    uint32_t write_bytes;
    uint8_t rest[header_bytes - 12];
};

struct request {
    uint8_t *data;
    uint64_t started_ns;
    struct header header;
    struct request *next;
};

struct session {
    int socket;
    bool waits_for_room;
    struct request *first, *last; // to be sent
    uint64_t sent;                // bytes of `first` that are out
    uint8_t *place;               // where the rest of an answer's data goes
    uint32_t missing;
    uint32_t answering;           // its tag
    uint32_t partial;             // bytes of a header that stand in `header`
    uint8_t header[header_bytes];
    uint8_t spill[spill_bytes];
};

static struct options options;
static struct session *sessions[maximum_sessions];
static struct request requests[maximum_depth];
static unsigned next_session, outstanding;
static int poller;
static bool stopping, measuring;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "tcp-floor-client: %s: %s\n", what, errno != 0 ? strerror(errno) : "wrong answer");
    exit(1);
}

static void issue(struct request *request)
{
    struct session *s = sessions[next_session];
    next_session = next_session + 1 == options.sessions ? 0 : next_session + 1;
    bool writing = options.write_percent > 0 && next_random() % 100 < options.write_percent;
    request->header = (struct header){.tag = (uint32_t)(request - requests),
                                      .read_bytes = writing ? 0 : options.block_size,
                                      .write_bytes = writing ? options.block_size : 0};
    request->started_ns = monotonic_ns();
    request->next = NULL;
    if (s->first == NULL)
        s->first = request;
    else
        s->last->next = request;
    s->last = request;
    outstanding++;
}

static void flush(struct session *s)
{
    while (s->first != NULL) {
        struct iovec pieces[256];
        int count = 0;
        uint64_t skip = s->sent;
        for (struct request *r = s->first; r != NULL && count < 255; r = r->next) {
            uint64_t before = skip < header_bytes ? skip : header_bytes;
            if (before < header_bytes)
                pieces[count++] = (struct iovec){(uint8_t *)&r->header + before, header_bytes - before};
            skip -= before;
            if (r->header.write_bytes > 0)
                pieces[count++] = (struct iovec){r->data + skip, r->header.write_bytes - skip};
            skip = 0;
        }
        struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
        ssize_t sent = sendmsg(s->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            fail("sendmsg");
        if (sent < 0)
            break;
        s->sent += (uint64_t)sent;
        while (s->first != NULL && s->sent >= header_bytes + (uint64_t)s->first->header.write_bytes) {
            s->sent -= header_bytes + (uint64_t)s->first->header.write_bytes;
            s->first = s->first->next;
        }
    }
    bool waits = s->first != NULL;
    if (waits != s->waits_for_room) {
        struct epoll_event interest = {.events = EPOLLIN | (waits ? EPOLLOUT : 0), .data.ptr = s};
        epoll_ctl(poller, EPOLL_CTL_MOD, s->socket, &interest);
        s->waits_for_room = waits;
    }
}

static void answered(struct session *s)
{
    struct request *request = &requests[s->answering];
    outstanding--;
    if (measuring)
        measuring_request(request->started_ns, false);
    if (!stopping)
        issue(request);
}

static void take_header(struct session *s, const uint8_t *bytes)
{
    struct header h;
    memcpy(&h, bytes, sizeof h);
    errno = 0;
    if (h.tag >= options.depth || h.read_bytes > options.block_size)
        fail("answer");
    s->answering = h.tag;
    s->place = requests[h.tag].data;
    s->missing = h.read_bytes;
    if (s->missing == 0)
        answered(s);
}

static void placed(struct session *s, uint32_t count)
{
    s->place += count;
    s->missing -= count;
    if (s->missing == 0)
        answered(s);
}

static void parse(struct session *s, const uint8_t *bytes, size_t count)
{
    while (count > 0) {
        size_t piece;
        if (s->missing > 0) {
            piece = count < s->missing ? count : s->missing;
            memcpy(s->place, bytes, piece);
            placed(s, (uint32_t)piece);
        } else if (s->partial == 0 && count >= header_bytes) {
            piece = header_bytes;
            take_header(s, bytes);
        } else {
            piece = header_bytes - s->partial < count ? header_bytes - s->partial : count;
            memcpy(s->header + s->partial, bytes, piece);
            s->partial += (uint32_t)piece;
            if (s->partial == header_bytes) {
                s->partial = 0;
                take_header(s, s->header);
            }
        }
        bytes += piece;
        count -= piece;
    }
}

static void receive(struct session *s)
{
    struct iovec pieces[2] = {{s->place, s->missing}, {s->spill, spill_bytes}};
    struct msghdr message = {.msg_iov = s->missing > 0 ? pieces : pieces + 1, .msg_iovlen = s->missing > 0 ? 2 : 1};
    ssize_t got = recvmsg(s->socket, &message, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        fail("recvmsg");
    size_t direct = (size_t)got < s->missing ? (size_t)got : s->missing;
    if (direct > 0)
        placed(s, (uint32_t)direct);
    parse(s, s->spill, (size_t)got - direct);
}

static void run(uint64_t deadline_ns)
{
    while (monotonic_ns() < deadline_ns && !(stopping && outstanding == 0)) {
        for (unsigned i = 0; i < options.sessions; i++)
            if (sessions[i]->first != NULL && !sessions[i]->waits_for_room)
                flush(sessions[i]);
        struct epoll_event ready[maximum_sessions];
        int count = epoll_wait(poller, ready, maximum_sessions, 1000);
        for (int i = 0; i < count; i++) {
            struct session *s = ready[i].data.ptr;
            if (ready[i].events & EPOLLOUT)
                flush(s);
            if (ready[i].events & ~(uint32_t)EPOLLOUT)
                receive(s);
        }
    }
}

static struct session *open_session(const char *portal)
{
    char text[64];
    const char *colon = strrchr(portal, ':');
    struct sockaddr_in address = {.sin_family = AF_INET};
    errno = EINVAL;
    if (colon == NULL || (size_t)(colon - portal) >= sizeof text)
        fail(portal);
    memcpy(text, portal, (size_t)(colon - portal));
    text[colon - portal] = 0;
    address.sin_port = htons((uint16_t)atoi(colon + 1));
    struct session *s = calloc(1, sizeof *s);
    int one = 1;
    if (s == NULL || inet_pton(AF_INET, text, &address.sin_addr) != 1)
        fail(portal);
    s->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s->socket, (struct sockaddr *)&address, sizeof address) != 0)
        fail(portal);
    setsockopt(s->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = s};
    epoll_ctl(poller, EPOLL_CTL_ADD, s->socket, &interest);
    return s;
}

int main(int argc, char **argv)
{
    options = parse_options(argc, argv, "ADDRESS:PORT");
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < options.sessions; i++)
        sessions[i] = open_session(options.urls[i % options.url_count]);
    for (unsigned i = 0; i < options.depth; i++) {
        void *data;
        if (posix_memalign(&data, 4096, options.block_size) != 0)
            fail("buffers");
        memset(data, (int)i + 1, options.block_size);
        requests[i].data = data;
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
    return outstanding == 0 ? 0 : 1;
}
