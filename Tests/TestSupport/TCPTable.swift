public import Foundation

/// One TCP socket of a process, as the kernel lists it.
public struct TCPTableEntry: Hashable, Sendable {
    public let local: LoopbackPortal
    public let remote: LoopbackPortal
    public let isListening: Bool
    public let isEstablished: Bool

    /// The TCP sockets of process `identifier`, IPv4 and IPv6, in its own network namespace.
    public static func sockets(of identifier: pid_t) -> [TCPTableEntry] {
        let inodes = socketInodes(of: identifier)
        return ["tcp", "tcp6"].flatMap { table in
            (readProcFile("/proc/\(identifier)/net/\(table)") ?? "").split(separator: "\n").dropFirst()
                .compactMap { line in
                    let fields = line.split(separator: " ")
                    guard fields.count > 9, inodes.contains(String(fields[9])), let local = endpoint(fields[1]),
                        let remote = endpoint(fields[2])
                    else { return nil }
                    return TCPTableEntry(
                        local: local, remote: remote, isListening: fields[3] == "0A",
                        isEstablished: fields[3] == "01")
                }
        }
    }

    private static func socketInodes(of identifier: pid_t) -> Set<String> {
        let directory = "/proc/\(identifier)/fd"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        let links = names.compactMap { try? FileManager.default.destinationOfSymbolicLink(atPath: "\(directory)/\($0)") }
        return Set(links.filter { $0.hasPrefix("socket:[") }.map { String($0.dropFirst(8).dropLast()) })
    }

    /// `0100007F:0CBC`: the address as 32-bit words in the machine's byte order, the port as a number.
    private static func endpoint(_ text: Substring) -> LoopbackPortal? {
        let parts = text.split(separator: ":")
        guard parts.count == 2, let port = UInt16(parts[1], radix: 16) else { return nil }
        var words: [UInt32] = []
        var rest = parts[0]
        while !rest.isEmpty {
            guard rest.count >= 8, let word = UInt32(rest.prefix(8), radix: 16) else { return nil }
            words.append(word)
            rest = rest.dropFirst(8)
        }
        guard words.count == 1 || words.count == 4 else { return nil }
        var name = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        let family = words.count == 1 ? AF_INET : AF_INET6
        guard inet_ntop(family, words, &name, socklen_t(name.count)) != nil else { return nil }
        let address = String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        return LoopbackPortal(address: address, port: port)
    }
}
