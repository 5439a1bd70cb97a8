import ArgumentParser
import AsyncIO
import Foundation
import ISCSI
import ISCSITarget
import MPIO

/// An embedded target on a reactor, and thread, of its own.
final class TargetHost: Sendable {
    private let reactor: LibaioReactor
    private let target: EmbeddedTarget
    /// Where the portals listen, in the order of the configuration; ports that the kernel chose included.
    let addresses: [SocketAddress]

    /// Opens the units and listens. Throws a ``CommandFailure`` in words for the user.
    init(_ configuration: ISCSITarget.TargetConfiguration) throws {
        var options = LibaioReactor.Options()
        // Each socket reserves kernel operations of a small system-wide store.
        options.socketCapacity = 512
        let reactor: LibaioReactor
        do {
            reactor = try LibaioReactor(options: options)
            try reactor.start(threadName: "mpio-target")
        } catch {
            throw CommandFailure("the target can't start: \(error.operation): \(String(cString: strerror(error.code)))")
        }
        do {
            (target, addresses) = try reactor.performAndWait {
                let target = try EmbeddedTarget(configuration: configuration, port: reactor)
                do {
                    try target.start()
                } catch {
                    target.stop()
                    throw error
                }
                return (target, configuration.portals.indices.map { target.address(ofPortal: $0) })
            }
            self.reactor = reactor
        } catch {
            reactor.stop()
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
