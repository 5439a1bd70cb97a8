import Foundation

/// The few socket calls that the helpers share. All descriptors are close-on-exec.
enum Socket {
    /// A stream socket for `portal`, and its address.
    private static func make(_ portal: LoopbackPortal, flags: Int32) throws -> (Int32, UnsafeMutablePointer<addrinfo>) {
        var hints = addrinfo()
        hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(portal.address, String(portal.port), &hints, &found) == 0, let found else {
            throw SystemError(call: "getaddrinfo \(portal)", code: EINVAL)
        }
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue) | flags
        let descriptor = socket(found.pointee.ai_family, kind, 0)
        guard descriptor >= 0 else {
            let code = errno
            freeaddrinfo(found)
            throw SystemError(call: "socket", code: code)
        }
        return (descriptor, found)
    }

    /// A socket that listens on `portal`, not blocking.
    static func listen(on portal: LoopbackPortal) throws -> Int32 {
        let (descriptor, address) = try make(portal, flags: Int32(SOCK_NONBLOCK.rawValue))
        defer { freeaddrinfo(address) }
        // As servers do: connections of the past in TIME_WAIT do not count.
        var one: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
        guard bind(descriptor, .init(__sockaddr__: address.pointee.ai_addr), address.pointee.ai_addrlen) == 0,
            Glibc.listen(descriptor, 64) == 0
        else {
            let error = SystemError(call: "listen on \(portal)")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// A socket on its way to `portal`, not blocking; whether it gets there shows later.
    static func connect(to portal: LoopbackPortal) throws -> Int32 {
        let (descriptor, address) = try make(portal, flags: Int32(SOCK_NONBLOCK.rawValue))
        defer { freeaddrinfo(address) }
        setNoDelay(descriptor)
        let result = Glibc.connect(
            descriptor, .init(__sockaddr__: address.pointee.ai_addr), address.pointee.ai_addrlen)
        guard result == 0 || errno == EINPROGRESS else {
            let error = SystemError(call: "connect to \(portal)")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    static func setNoDelay(_ descriptor: Int32) {
        var one: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
    }

    /// Closes with RST rather than FIN.
    static func reset(_ descriptor: Int32) {
        var now = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size))
        close(descriptor)
    }
}
