import Foundation
import TestSupport
import Testing

@testable import MPIOCommand

/// `mpio target` as a child process, on loopback portals of its own.
final class ServedTarget {
    static let name = "iqn.2026-11.org.example:served"

    let folder: Folder
    /// What its output's files are called.
    let log: String
    let portals: [LoopbackPortal]
    let process: ChildProcess

    init(
        portalCount: Int = 2, luns: [String] = ["0=memory,size=64M"], flags: [String] = [], name: String = ServedTarget.name,
        log: String = "target", in folder: Folder
    ) throws {
        self.folder = folder
        self.log = log
        portals = try LoopbackPortal.unused(count: portalCount)
        var arguments = ["target", "--name", name] + flags
        for portal in portals { arguments += ["--listen", "\(portal)"] }
        for lun in luns { arguments += ["--lun", lun] }
        process = try ChildProcess(
            executable: Mpio.binary, arguments: arguments, environment: ["XDG_RUNTIME_DIR": folder.path],
            standardOutput: .file(folder.path + "/\(log).out"), standardError: .file(folder.path + "/\(log).err"))
        for _ in 0..<4000 {
            if !portals[0].isFree, output.contains("Ctrl-C ends it.") { return }
            guard process.isRunning else { break }
            usleep(5000)
        }
        throw CommandFailure("the target did not start: \(try String(contentsOfFile: folder.path + "/\(log).err", encoding: .utf8))")
    }

    var output: String { (try? String(contentsOfFile: folder.path + "/\(log).out", encoding: .utf8)) ?? "" }

    /// Ends it as Ctrl-C does; its exit.
    func interrupt() -> ProcessEnd? {
        process.send(signal: SIGINT)
        return process.wait(timeout: .seconds(20))
    }
}

/// A TCP port that accepts connections (the kernel does) and never says a word.
final class MutePortal {
    private let descriptor: Int32

    init(_ portal: LoopbackPortal) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = portal.port.bigEndian
        inet_pton(AF_INET, portal.address, &address.sin_addr)
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard descriptor >= 0, bound == 0, listen(descriptor, 8) == 0 else { throw CommandFailure("\(portal): \(String(cString: strerror(errno)))") }
    }

    deinit { close(descriptor) }
}
