import Foundation
import Glibc

/// Tells the service manager how this process is, by the protocol of sd_notify(3): datagrams to `$NOTIFY_SOCKET`.
/// Without that variable every call does nothing.
final class ServiceManager: Sendable {
    private let descriptor: Int32
    /// How often it wants to hear that the process is alive; nil: not at all.
    let watchdogInterval: Duration?

    /// - Parameter environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, as systemd sets them.
    init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        descriptor = environment["NOTIFY_SOCKET"].map { Self.connect($0) } ?? -1
        let isForUs = environment["WATCHDOG_PID"].map { Int32($0) == getpid() } ?? true
        guard descriptor >= 0, isForUs, let interval = environment["WATCHDOG_USEC"].flatMap({ Int64($0) }), interval > 0 else {
            watchdogInterval = nil
            return
        }
        watchdogInterval = .microseconds(interval)
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    func ready() { send("READY=1") }
    func stopping() { send("STOPPING=1") }
    func alive() { send("WATCHDOG=1") }
    /// One line for `systemctl status`.
    func status(_ text: String) { send("STATUS=" + text.replacing("\n", with: " ")) }

    /// A reload begins; ``ready()`` ends it. The moment lets the manager tell it from an earlier one.
    func reloading() {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        send("RELOADING=1\nMONOTONIC_USEC=\(Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000)")
    }

    private func send(_ text: String) {
        guard descriptor >= 0 else { return }
        let bytes = Array(text.utf8)
        // A service manager that takes nothing is no reason to stop working.
        _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
    }

    /// A path, or a name in the abstract namespace after `@`.
    private static func connect(_ name: String) -> Int32 {
        var bytes = Array(name.utf8)
        guard let first = bytes.first, first == UInt8(ascii: "/") || first == UInt8(ascii: "@"), bytes.count < 108 else { return -1 }
        if first == UInt8(ascii: "@") { bytes[0] = 0 }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return -1 }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), length) == 0
            }
        }
        guard connected else {
            close(descriptor)
            return -1
        }
        return descriptor
    }
}
