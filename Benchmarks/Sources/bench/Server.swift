import Foundation
import TestSupport

/// A target in a process of its own, on the processor of the targets, with one LUN 1 behind every portal.
final class Server {
    let portals: [LoopbackPortal]
    let targetName = "iqn.2026-11.org.example:bench"
    let processIdentifier: pid_t
    private let process: Process
    /// Of the file behind the LUN, where there is one.
    private let directory: TemporaryDirectory
    private let file: String?

    /// Kept alive: what it runs ends with it.
    private enum Process {
        case tgtd(TgtServer)
        case embedded(ChildProcess)
    }

    static let fileByteCount: UInt64 = 1 << 30

    /// - Parameters:
    ///   - digests: those that tgtd insists on; the embedded target leaves the choice to the initiator.
    ///   - processor: where it runs; nil: anywhere.
    ///   - mpio: the command, for the embedded target.
    init(_ kind: TargetKind, portalCount: Int, digests: Digests, processor: Int?, mpio: String?) throws {
        directory = try TemporaryDirectory("bench-target")
        portals = try LoopbackPortal.unused(count: portalCount)
        var file: String?
        switch kind {
        case .tgtdNull, .tgtdFile:
            var backing = TgtConfiguration.Backing.null
            if kind == .tgtdFile {
                // In memory where that is possible: what is measured is the target, not a disk.
                let path = access("/dev/shm", W_OK) == 0 ? "/dev/shm/mpio-bench-\(getpid()).img" : directory.file("disk.img")
                file = path
                backing = .file(path: path, byteCount: Self.fileByteCount)
            }
            let server = try TgtServer(
                Self.configuration(backing, portals, targetName, sessions: portalCount, digests, processor))
            process = .tgtd(server)
            guard let identifier = server.processIdentifier else { throw TgtFailure.notRunning }
            processIdentifier = identifier
        case .embedded:
            guard let mpio else { throw MissingProgram(name: "mpio") }
            let child = try Self.startEmbedded(mpio, portals, targetName, processor: processor)
            process = .embedded(child)
            processIdentifier = child.identifier
        }
        self.file = file
    }

    deinit {
        if let file { unlink(file) }
    }

    func url(portal index: Int) -> String { "iscsi://\(portals[index])/\(targetName)/1" }

    private static func configuration(
        _ backing: TgtConfiguration.Backing, _ portals: [LoopbackPortal], _ name: String, sessions: Int, _ digests: Digests,
        _ processor: Int?
    ) -> TgtConfiguration {
        var configuration = TgtConfiguration(
            portals: portals, targetName: name,
            logicalUnits: [.init(backing: backing, scsiID: "bec40001", serial: "bec40001")])
        configuration.parameters = [
            ("MaxRecvDataSegmentLength", "262144"), ("MaxXmitDataSegmentLength", "262144"),
            ("MaxBurstLength", "262144"), ("FirstBurstLength", "262144"), ("InitialR2T", "No"),
            ("ImmediateData", "Yes"), ("MaxConnections", "\(sessions)"),
        ]
        if digests.header { configuration.parameters.append(("HeaderDigest", "CRC32C")) }
        if digests.data { configuration.parameters.append(("DataDigest", "CRC32C")) }
        configuration.processor = processor
        return configuration
    }

    private static func startEmbedded(
        _ mpio: String, _ portals: [LoopbackPortal], _ name: String, processor: Int?
    ) throws -> ChildProcess {
        let pinned = try processor.map { [try Tool.path("taskset"), "-c", "\($0)"] } ?? []
        let line = pinned + [mpio, "target", "--quiet", "--name", name, "--lun", "1=null,size=1T"]
            + ["--max-connections", "\(portals.count)"] + portals.flatMap { ["--listen", "\($0)"] }
        let child = try ChildProcess(executable: line[0], arguments: Array(line.dropFirst()))
        try child.awaitListening(on: portals.count, name: "mpio target")
        return child
    }
}

extension ChildProcess {
    /// Returns when the process listens on so many TCP sockets.
    func awaitListening(on count: Int, name: String) throws {
        let deadline = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < deadline, isRunning {
            if TCPTableEntry.sockets(of: identifier).filter(\.isListening).count == count { return }
            usleep(2_000)
        }
        throw Contender.Failure.failed(name: name, how: "does not listen", output: "")
    }
}

struct MissingProgram: Error, CustomStringConvertible {
    let name: String
    var description: String { "\(name) is not beside this program; run: make bench, or say where it is by --mpio" }
}
