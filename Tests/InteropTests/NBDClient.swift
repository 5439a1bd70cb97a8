import Foundation
import NBD
import TestSupport

/// A client that says what it is told to, right or wrong; no library between. Blocks, for ten seconds at most.
final class NBDClient {
    private let descriptor: Int32

    init(_ path: String) throws {
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw SystemError(call: "socket") }
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, .init(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 else { throw SystemError(call: "connect to \(path)") }
    }

    deinit { close(descriptor) }

    /// Connected, and past the negotiation.
    convenience init(_ path: String, export: String) throws {
        try self.init(path)
        try send(Self.number(UInt32(3)) + Self.option(1, Array(export.utf8)))
        _ = try receive(18 + 10)
    }

    static func number<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

    static func option(_ code: UInt32, _ data: [UInt8] = []) -> [UInt8] {
        Array("IHAVEOPT".utf8) + number(code) + number(UInt32(data.count)) + data
    }

    /// False where the server does not take it all.
    @discardableResult
    func send(_ bytes: [UInt8], flags: Int32 = 0) throws -> Int {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { Foundation.send(descriptor, $0.baseAddress! + done, $0.count - done, Int32(MSG_NOSIGNAL) | flags) }
            guard count > 0 else {
                if errno == EINTR { continue }
                if errno == EAGAIN, flags & Int32(MSG_DONTWAIT) != 0 { break }
                throw SystemError(call: "send")
            }
            done += count
        }
        return done
    }

    func receive(_ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let part = bytes.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress! + done, count - done, 0) }
            if part < 0, errno == EINTR { continue }
            guard part > 0 else { throw SystemError(call: "recv after \(done) bytes", code: part == 0 ? ECONNRESET : errno) }
            done += part
        }
        return bytes
    }

    /// Whether the server hung up.
    func isClosed() -> Bool {
        var byte: UInt8 = 0
        while true {
            let count = recv(descriptor, &byte, 1, 0)
            if count > 0 || count < 0 && errno == EINTR { continue }
            return count == 0 || errno == ECONNRESET
        }
    }

    func request(_ command: CommandCode, cookie: UInt64 = 1, offset: UInt64 = 0, _ count: Int = 0, flags: CommandFlags = []) throws {
        try send(Self.message(command, cookie: cookie, offset: offset, count, flags: flags))
    }

    static func message(_ command: CommandCode, cookie: UInt64 = 1, offset: UInt64 = 0, _ count: Int = 0, flags: CommandFlags = []) -> [UInt8] {
        number(UInt32(0x2560_9513)) + number(flags.rawValue) + number(command.rawValue) + number(cookie) + number(offset) + number(UInt32(count))
    }

    /// The error of the next answer, which is a simple one without data.
    func error() throws -> UInt32 {
        let bytes = try receive(16)
        guard Array(bytes[..<4]) == Self.number(UInt32(0x6744_6698)) else { throw SystemError(call: "no answer", code: EPROTO) }
        return bytes[4..<8].reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// Does a request without data in the answer, or READ where `reads`.
    func perform(
        _ command: CommandCode, offset: UInt64 = 0, _ count: Int = 0, flags: CommandFlags = [], payload: [UInt8] = []
    ) throws -> UInt32 {
        try send(Self.message(command, offset: offset, count, flags: flags) + payload)
        let error = try error()
        if command == .read, error == 0 { _ = try receive(count) }
        return error
    }
}
