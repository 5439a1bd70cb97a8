package import Multipath
package import SCSI
import Timebase

// The engine without a policy file, a lease or a thread of its own, for whoever brings their own `IOPort`:
// the simulator. The same objects as `ManagerState` puts together.

extension DiskEngine {
    package convenience init(
        name: String, settings: LUNSettings, modules: DSMRegistry, host: EngineHost, lane: Lane = .only
    ) {
        self.init(name: name, settings: settings, modules: modules, log: EventLog(), host: host, lane: lane)
    }

    /// Adds a path over a session and begins to connect it.
    package func addPath(_ settings: PathSettings, over inventory: SessionInventory, lun: LogicalUnitNumber) {
        let reference = DiskPath.SessionReference(
            path: inventory.path, inventory: inventory, configuredLUN: lun, identity: nil, isCandidate: false)
        addPath(settings, transport: .session(reference), load: inventory.path.load)
        host.runDirtyDisks()
    }

    /// Calls `report` once: the disk can be used, or no path could be made to work.
    package func whenOpen(timers: Timers, report: @escaping (_ isOpen: Bool) -> Void) {
        DiskOpening(self, limits: .use(timers)) { outcome in
            if case .opened = outcome { report(true) } else { report(false) }
        }
    }

    package var pseudoLUN: PseudoLUN { lun }

    /// Requests that are not over, those without a slot included.
    package var openRequestCount: Int { lun.requestCount + waitingCount }
}

extension IOSubmission {
    package init(
        _ operation: IOOperation, offset: UInt64, byteCount: Int, memory: UnsafeMutableRawPointer?, token: UInt64,
        forceUnitAccess: Bool = false, sink: CompletionSink
    ) {
        self.init(
            operation: operation, forceUnitAccess: forceUnitAccess, offset: offset, byteCount: byteCount,
            memory: memory, token: token, sink: .passUnretained(sink))
    }
}

extension DiskEngine {
    package func takeOut(_ path: PathIndex, _ how: TakeOut) {
        lun.takeOut(path, how, at: now)
        touch()
        host.runDirtyDisks()
    }

    package func restore(_ path: PathIndex) {
        lun.restore(path, at: now)
        touch()
        host.runDirtyDisks()
    }

    package func changePolicy(_ policy: PolicySettings) {
        lun.setPolicy(policy, at: now)
        touch()
        host.runDirtyDisks()
    }
}

/// Hands each completion to a closure.
package final class ClosureSink: CompletionSink {
    package var body: ((IOCompletion) -> Void)?

    package override init() { super.init() }

    package override func deliver(_ completions: UnsafeBufferPointer<IOCompletion>) {
        for completion in completions { body?(completion) }
    }
}
