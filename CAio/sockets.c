#include "CAio.h"
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static int set_flag(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof value);
}

static bool is_internet(sa_family_t family) { return family == AF_INET || family == AF_INET6; }

static in_port_t port_of(const struct sockaddr *address) {
    return address->sa_family == AF_INET ? ((const struct sockaddr_in *)address)->sin_port
                                         : ((const struct sockaddr_in6 *)address)->sin6_port;
}

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    if (address->sa_family != AF_INET6) return false;
    const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127);
}

// Between programs of one machine there is no network to be congested. A system-wide algorithm that paces what it sends
// by timers (BBR) doubles what a large write costs there. Reno paces nothing and is open to every process; to be set
// before the connection begins, since pacing, once on, stays.
static void do_without_pacing(int fd) {
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

int mpio_connect(const struct sockaddr *to, socklen_t to_count, const struct sockaddr *from,
                 socklen_t from_count, bool *in_progress) {
    *in_progress = false;
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (is_internet(to->sa_family)) set_flag(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (is_loopback(to)) do_without_pacing(fd);
    if (from) {
        // Without it bind() reserves a port for all destinations, and thousands of connections run out.
        if (is_internet(from->sa_family) && port_of(from) == 0)
            set_flag(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        if (bind(fd, from, from_count) < 0) goto failed;
    }
    if (connect(fd, to, to_count) == 0) return fd;
    if (errno == EINPROGRESS || errno == EINTR) {
        *in_progress = true;
        return fd;
    }
failed:;
    int code = errno;
    close(fd);
    return -code;
}

int mpio_listen(const struct sockaddr *address, socklen_t count, int backlog) {
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (is_internet(address->sa_family)) set_flag(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    // [::] and 0.0.0.0 are two portals, each with its own listener.
    if (address->sa_family == AF_INET6) set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    // bind() makes the file of a Unix socket with the mode of the socket itself: nobody else gets in, not even before a chmod.
    if (address->sa_family == AF_UNIX) fchmod(fd, 0600);
    // What it accepts takes the algorithm over.
    if (is_loopback(address)) do_without_pacing(fd);
    if (bind(fd, address, count) == 0 && listen(fd, backlog) == 0) return fd;
    int code = errno;
    close(fd);
    return -code;
}

// A host that is gone says nothing more, and who only waits for its requests would never hear of it. An idle connection is asked after a
// minute, and given up after two; where something is on its way to the peer, TCP's own retransmission decides.
static void ask_for_life(int fd) {
    set_flag(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_flag(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    set_flag(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
    set_flag(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

int mpio_accept(int fd, struct sockaddr_storage *peer, socklen_t *peer_count) {
    *peer_count = sizeof *peer;
    int accepted = accept4(fd, (struct sockaddr *)peer, peer_count, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted < 0) return -errno;
    if (is_internet(peer->ss_family)) {
        set_flag(accepted, IPPROTO_TCP, TCP_NODELAY, 1);
        ask_for_life(accepted);
    }
    return accepted;
}

int mpio_connect_result(int fd) {
    int code = 0;
    socklen_t count = sizeof code;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &count) < 0) return -errno;
    if (code) return -code;

    struct sockaddr_storage near, far;
    memset(&near, 0, sizeof near);
    memset(&far, 0, sizeof far);
    socklen_t near_count = sizeof near, far_count = sizeof far;
    if (getsockname(fd, (struct sockaddr *)&near, &near_count) < 0) return -errno;
    if (getpeername(fd, (struct sockaddr *)&far, &far_count) < 0) return -errno;
    if (is_internet(near.ss_family) && near_count == far_count && memcmp(&near, &far, near_count) == 0)
        return -ECONNREFUSED;
    return 0;
}

int mpio_set_receive_threshold(int fd, int byte_count) {
    return set_flag(fd, SOL_SOCKET, SO_RCVLOWAT, byte_count) < 0 ? -errno : 0;
}

int mpio_local_address(int fd, struct sockaddr_storage *address, socklen_t *count) {
    *count = sizeof *address;
    return getsockname(fd, (struct sockaddr *)address, count) < 0 ? -errno : 0;
}

void mpio_close_gracefully(int fd, bool is_tcp) {
    // Unread input would turn the FIN into an RST, which discards what is still to be sent. Bounded,
    // for a peer that never stops sending.
    if (is_tcp) {
        for (int i = 0; i < 16; i++)
            if (recv(fd, NULL, 1 << 24, MSG_TRUNC | MSG_DONTWAIT) <= 0) break;
    }
    // Sends the FIN now and wakes every POLL, whose reference to the file close() does not end.
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

void mpio_close_with_reset(int fd) {
    struct linger discard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &discard, sizeof discard);
    // Dissolving the association empties the send queue and sends the RST at once, although a pending
    // POLL still holds the file. Other families answer with an error; for them shutdown wakes the POLL.
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    connect(fd, &nobody, sizeof nobody);
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

int mpio_transport_health(int fd, struct mpio_transport_health *out) {
    memset(out, 0, sizeof *out);
    int queued = 0;
    int domain = 0;
    socklen_t count = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &count) < 0) return -errno;
    // A local peer's kernel is this one: nothing is ever unacknowledged.
    if (domain == AF_UNIX) return 0;

    struct tcp_info info;
    memset(&info, 0, sizeof info);
    count = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &count) < 0) return -errno;
    if (ioctl(fd, SIOCOUTQ, &queued) < 0) return -errno;
    out->unacknowledged_bytes = queued > 0 ? (uint64_t)queued : 0;
    out->milliseconds_since_ack = info.tcpi_last_ack_recv;
    out->unanswered_retransmissions = (uint32_t)info.tcpi_retransmits + info.tcpi_probes;
    return 0;
}
