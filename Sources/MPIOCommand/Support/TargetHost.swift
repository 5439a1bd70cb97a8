import ArgumentParser
import AsyncIO
import Cryptography
import Foundation
import Gateway
import ISCSI
import ISCSITarget
import MPIO

/// An embedded target on a reactor, and thread, of its own; or, as a gateway, on that of the disks behind it.
final class TargetHost: Sendable {
    private let reactor: LibaioReactor
    private let ownsReactor: Bool
    private let target: EmbeddedTarget
    /// Where the portals listen, in the order of the configuration's nodes; ports that the kernel chose included.
    let addresses: [SocketAddress]

    /// Open disks by the names that the units know them by, and the manager to which they belong.
    struct Disks {
        var manager: PathManager
        var disks: [String: MultipathDisk] = [:]

        /// What the disks say of their units: size, block size, write protection.
        func applied(to configuration: ISCSITarget.TargetConfiguration) throws -> ISCSITarget.TargetConfiguration {
            var result = configuration
            for index in result.logicalUnits.indices {
                guard let disk = result.logicalUnits[index].diskName.flatMap({ disks[$0] }) else { continue }
                guard [512, 4096].contains(disk.blockSize) else {
                    throw CommandFailure("\(disk.name) has blocks of \(disk.blockSize) bytes; the target serves 512 and 4096")
                }
                result.logicalUnits[index].byteCount = disk.capacityByteCount
                result.logicalUnits[index].blockSize = disk.blockSize
                if disk.device.isWriteProtected { result.logicalUnits[index].isReadOnly = true }
            }
            return result
        }
    }

    private static func makeReactor() throws -> LibaioReactor {
        var options = LibaioReactor.Options()
        // Each socket reserves kernel operations of a small system-wide store.
        options.socketCapacity = 512
        // An initiator that has one request under way gets its answer sooner, where that is measured to cost little.
        options.adaptivePolling = .microseconds(50)
        do {
            let reactor = try LibaioReactor(options: options)
            try reactor.start(threadName: "mpio-target")
            return reactor
        } catch {
            throw CommandFailure("the target can't start: \(error.operation): \(String(cString: strerror(error.code)))")
        }
    }

    /// Opens the units and listens. Throws a ``CommandFailure`` in words for the user.
    /// - Parameter disks: for the units on disks; their manager was made with `hostsTarget`, and outlives this.
    init(_ configuration: ISCSITarget.TargetConfiguration, disks: Disks? = nil) throws {
        let reactor = try disks?.manager.reactor ?? Self.makeReactor()
        ownsReactor = disks == nil
        // With disks behind it, the reactor is theirs as well, and they have their own way to gather answers.
        let configuration = configuration.gatheringCommands(ownsReactor)
        do {
            (target, addresses) = try reactor.performAndWait {
                let target = try EmbeddedTarget(configuration: configuration, port: reactor, cryptography: SystemCryptography()) {
                    guard let disks, let disk = $0.diskName.flatMap({ disks.disks[$0] }) else { return nil }
                    return DiskBackend(disk: disk, manager: disks.manager)
                }
                target.onProblem = { StandardError.write("mpio: \($0.words)\n") }
                do {
                    try target.start()
                } catch {
                    target.stop()
                    throw error
                }
                let count = configuration.portals.count + configuration.furtherNodes.reduce(0) { $0 + $1.portals.count }
                return (target, (0..<count).map { target.address(ofPortal: $0) })
            }
            self.reactor = reactor
        } catch {
            if ownsReactor { reactor.stop() }
            if let error = error as? EmbeddedTargetError { throw CommandFailure(error.words, status: error.status) }
            throw error
        }
    }

    /// Cuts a path (connections are reset, new ones refused), or mends it.
    func setPortal(_ index: Int, enabled: Bool) throws {
        do {
            try reactor.performAndWait { [target] in try target.setPortal(index, enabled: enabled) }
        } catch let error as EmbeddedTargetError {
            throw CommandFailure(error.words)
        }
    }

    func perform(_ request: FaultRequest) throws -> FaultReply {
        try reactor.performAndWait { [target] in target.perform(request) }
    }

    /// As the policy file has it.
    func identity(ofUnit number: Int) -> String {
        let bytes = try? reactor.performAndWait { [target] in target.node.units.first { $0.number == number }?.identity }
        return "naa." + (bytes ?? []).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    var connectionCount: Int {
        let count = try? reactor.performAndWait { [target, addresses] in
            addresses.indices.reduce(0) { $0 + target.connectionCount(portal: $1) }
        }
        return count ?? 0
    }

    /// Commands served so far.
    var counters: TargetCounters {
        (try? reactor.performAndWait { [target] in target.counters() }) ?? TargetCounters()
    }

    /// Asks the initiators to log out, gives them `patience` to do so, and ends.
    func stop(patience: Duration) async {
        if patience > .zero, connectionCount > 0 {
            let seconds = UInt16(clamping: max(1, patience.components.seconds))
            try? reactor.performAndWait { [target, addresses] in
                for portal in addresses.indices {
                    target.sendAsyncMessage(.logoutRequested(withinSeconds: seconds), portal: portal)
                }
            }
            let deadline = ContinuousClock.now + patience
            while ContinuousClock.now < deadline, connectionCount > 0 {
                // Detached: the task that ends the target is often a cancelled one, which no longer sleeps.
                await Task.detached { try? await Task.sleep(for: .milliseconds(20)) }.value
            }
        }
        try? reactor.performAndWait { [target] in target.stop() }
        guard ownsReactor else { return }
        let reactor = reactor
        await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                reactor.stop()
                continuation.resume()
            }
        }
    }
}

extension EmbeddedTargetError {
    var words: String {
        switch self {
        case .noPortal: "no portal to listen on"
        case .duplicatePortal(let address): "the portal \(address) is given twice"
        case .duplicateUnit(let number): "LUN \(number) is given twice"
        case .twoUnitsOfOneIdentity(let number, let other): "LUNs \(other) and \(number) have one identity; give each its own by serial= or identity="
        case .badNode(let problem): problem.description
        case .cannotListen(let address, let error):
            switch error.code {
            case EADDRINUSE: "\(address) is in use: another process listens there"
            case EADDRNOTAVAIL: "\(address) is no address of this machine"
            case EACCES: "\(address): ports below 1024 are for root"
            default: "can't listen on \(address): \(String(cString: strerror(error.code)))"
            }
        case .cannotOpen(let unit, let error): "LUN \(unit): \(error.operation): \(String(cString: strerror(error.code)))"
        case .noBackend(let unit): "LUN \(unit): its disk is not open"
        case .alreadyStarted: "the target runs already"
        }
    }

    fileprivate var status: ExitCode {
        switch self {
        case .noPortal, .duplicatePortal, .duplicateUnit, .twoUnitsOfOneIdentity, .badNode: ExitStatus.usage
        default: ExitStatus.failed
        }
    }
}

extension TargetProblem {
    fileprivate var words: String {
        switch self {
        case .reservationsUnreadable(let unit, let error):
            "LUN \(unit) is not ready: \(error.operation): \(String(cString: strerror(error.code))); what is reserved is not known"
        }
    }
}

extension ISCSITarget.TargetConfiguration {
    fileprivate func gatheringCommands(_ isWanted: Bool) -> Self {
        var copy = self
        copy.gathersCommands = isWanted
        return copy
    }
}

extension LogicalUnitConfiguration {
    /// The LUN of the policy file behind it.
    var diskName: String? {
        if case .disk(let name) = storage { return name }
        return nil
    }
}
