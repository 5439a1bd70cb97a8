import Foundation

/// A connection to one holder's control socket. Blocking; for command-line tools.
public final class ControlClient {
    /// The socket's name in the file system.
    public let path: String
    private let descriptor: Int32
    private var input: [UInt8] = []
    private var timeout: Duration

    /// A response is at most this long: that of some ten thousand paths.
    public static var maximumResponseByteCount: Int { 64 << 20 }

    /// Connects. `timeout` bounds that, and each request. Throws ``ControlSocketError`` where nobody listens, or another
    /// user's process does.
    public init(path: String, timeout: Duration = .seconds(2)) throws(ControlSocketError) {
        self.path = path
        self.timeout = timeout
        descriptor = try UnixSocket.make()
        let deadline = ContinuousClock.now + timeout
        // Whatever throws from here on, the deinitializer closes the descriptor: the object is whole.
        while true {
            let code = try UnixSocket.connect(descriptor, to: path)
            if code == 0 { break }
            // A full backlog says EAGAIN at once: nothing to poll for.
            guard code == EAGAIN || code == EINTR else { throw .system(operation: "connect", code: code) }
            guard ContinuousClock.now < deadline else { throw .timedOut }
            usleep(2000)
        }
        guard UnixSocket.isTrusted(descriptor) else { throw .untrustedPeer }
    }

    deinit { close(descriptor) }

    /// Sends a request and waits for its response. After an error the connection is of no more use.
    public func request(_ request: ControlRequest) throws(ControlSocketError) -> ControlResponse {
        try exchange(request)
    }

    /// The same in another language: see ``ControlLines``.
    package func exchange<Response: Decodable>(_ request: some Encodable) throws(ControlSocketError) -> Response {
        let deadline = ContinuousClock.now + timeout
        guard let data = try? JSONEncoder().encode(request) else { throw .malformedResponse }
        try send(Array(data) + [0x0A], deadline: deadline)
        let line = try receiveLine(deadline: deadline)
        guard let response = try? JSONDecoder().decode(Response.self, from: Data(line)) else { throw .malformedResponse }
        return response
    }

    private func send(_ bytes: [UInt8], deadline: ContinuousClock.Instant) throws(ControlSocketError) {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                Foundation.send(descriptor, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count > 0 {
                sent += count
            } else if errno == EAGAIN {
                try wait(for: POLLOUT, until: deadline)
            } else if errno == EPIPE || errno == ECONNRESET {
                throw .closed
            } else if errno != EINTR {
                throw .system(operation: "send", code: errno)
            }
        }
    }

    private func receiveLine(deadline: ContinuousClock.Instant) throws(ControlSocketError) -> [UInt8] {
        var searched = 0
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            if let end = input[searched...].firstIndex(of: 0x0A) {
                let line = Array(input[..<end])
                input.removeSubrange(...end)
                return line
            }
            searched = input.count
            guard input.count <= Self.maximumResponseByteCount else { throw .malformedResponse }
            let count = chunk.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
            if count > 0 {
                input.append(contentsOf: chunk[..<count])
            } else if count == 0 || errno == ECONNRESET {
                throw .closed
            } else if errno == EAGAIN {
                try wait(for: POLLIN, until: deadline)
            } else if errno != EINTR {
                throw .system(operation: "recv", code: errno)
            }
        }
    }

    private func wait(for event: Int32, until deadline: ContinuousClock.Instant) throws(ControlSocketError) {
        let left = deadline - .now
        guard left > .zero else { throw .timedOut }
        var entry = pollfd(fd: descriptor, events: Int16(event), revents: 0)
        _ = poll(&entry, 1, Int32(clamping: left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000 + 1))
    }

    // MARK: Finding holders

    /// A client for each process that holds LUNs and that this user may ask. Sockets of dead processes are removed;
    /// folders that others could write to are left alone, unread.
    public static func discover(
        directories: [String] = RuntimeDirectory.searchPaths(), timeout: Duration = .seconds(2)
    ) -> [ControlClient] {
        find(directories: directories, timeout: timeout).clients
    }

    /// The same for sockets whose names end otherwise.
    package static func discover(suffix: String, directories: [String], timeout: Duration = .seconds(2)) -> [ControlClient] {
        find(suffix: suffix, directories: directories, timeout: timeout).clients
    }

    /// Who listens, and whose sockets take no connection: a process that is stopped for long, with a full backlog.
    package struct Found {
        /// In the order of the folders and of the sockets' names.
        package var clients: [ControlClient] = []
        /// Sockets that gave no answer in time.
        package var silent: [String] = []
    }

    /// As ``discover(directories:timeout:)``, and tells who is silent.
    /// - Parameter except: sockets that are left alone, by their names in the file system.
    package static func find(
        suffix: String = ControlServer.holderSuffix, directories: [String], timeout: Duration, except: Set<String> = []
    ) -> Found {
        var found = Found()
        for directory in directories {
            do throws(RuntimeDirectoryError) {
                try RuntimeDirectory.check(directory)
            } catch {
                continue
            }
            let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
            for name in names.sorted() where name.hasSuffix(suffix) && !name.hasPrefix(".") {
                let path = directory + "/" + name
                if except.contains(path) { continue }
                do throws(ControlSocketError) {
                    found.clients.append(try ControlClient(path: path, timeout: timeout))
                } catch .system(_, ECONNREFUSED) {
                    removeIfStale(path)
                } catch .timedOut {
                    found.silent.append(path)
                } catch {
                    // Gone, or another user's: not a holder that can be asked.
                    continue
                }
            }
        }
        return found
    }

    /// Removes a socket that nobody listens on any more. A holder's socket gets its name only once it listens, so a
    /// refusal means that its process is gone.
    @discardableResult
    static func removeIfStale(_ path: String) -> Bool {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK, status.st_uid == geteuid() else { return false }
        guard let descriptor = try? UnixSocket.make() else { return false }
        defer { close(descriptor) }
        guard let result = try? UnixSocket.connect(descriptor, to: path), result == ECONNREFUSED else { return false }
        return unlink(path) == 0
    }
}
