import Foundation
import TestSupport

/// Two network namespaces of the test's own, joined by cables whose packets can be made to vanish. Nothing in them can
/// reach the machine's network, nor the other way round.
final class PrivateNetwork: Sendable {
    static let initiator = 0
    static let target = 1
    private let names: [String]

    /// With `count` cables; the target's end of cable n has the address 10.77.n.2.
    /// - Throws: ``CommandFailure`` where this process may not make network namespaces (it takes root, or being root of a
    ///   user namespace).
    init(cables count: Int) throws {
        let tag = "mpio\(getpid())x\(UInt16.random(in: 0...(.max)))"
        names = ["\(tag)i", "\(tag)t"]
        for name in names {
            try Self.ip("netns", "add", name)
            try Self.ip("-n", name, "link", "set", "lo", "up")
        }
        for cable in 0..<count {
            try Self.ip("-n", names[0], "link", "add", "c\(cable)", "type", "veth", "peer", "name", "c\(cable)", "netns", names[1])
            for (end, name) in names.enumerated() {
                try Self.ip("-n", name, "address", "add", "\(Self.address(cable, end))/24", "dev", "c\(cable)")
                try Self.ip("-n", name, "link", "set", "c\(cable)", "up")
            }
        }
    }

    deinit {
        for name in names { try? Self.ip("netns", "del", name) }
    }

    static func address(_ cable: Int, _ end: Int = target) -> String { "10.77.\(cable).\(end + 1)" }

    /// From now on all packets on the cable vanish without a trace: each end sends to a station that is not there.
    func swallow(cable: Int) throws {
        for (end, name) in names.enumerated() {
            try Self.ip(
                "-n", name, "neighbour", "replace", Self.address(cable, 1 - end), "lladdr", "02:00:00:00:00:99", "dev",
                "c\(cable)", "nud", "permanent")
        }
    }

    /// Puts the calling thread, and the sockets that it makes from now on, into a namespace.
    func enter(_ end: Int) {
        // Not in Glibc's module map without _GNU_SOURCE.
        typealias SetNamespace = @convention(c) (Int32, Int32) -> Int32
        let setns = unsafeBitCast(dlsym(nil, "setns"), to: SetNamespace.self)
        let descriptor = open("/run/netns/\(names[end])", O_RDONLY | O_CLOEXEC)
        precondition(descriptor >= 0 && setns(descriptor, 0x4000_0000) == 0, "entering a network namespace: errno \(errno)")
        close(descriptor)
    }

    private static func ip(_ arguments: String...) throws {
        _ = try CommandRunner.requireBlocking("ip", arguments)
    }
}
