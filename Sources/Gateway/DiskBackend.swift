import AsyncIO
package import ISCSITarget
package import MPIO
import SCSI

/// A logical unit's blocks on a ``MultipathDisk``: what makes an embedded target a gateway.
///
/// **Threads.** The target lives on the manager's reactor, and so all of this happens on one thread: a command costs
/// no hand-over, and what commands of one turn ask enters the disk as one batch. It is sendable only for its own
/// callbacks, which come there.
/// **Writes.** FUA is the disk's own, and so is the flush: the gateway has no cache. Where a disk refuses FUA, such
/// writes are followed by a flush.
/// **COMPARE AND WRITE** is the disk's where it has the command, so that it holds between gateways as well; otherwise
/// the unit reads, compares and writes while it executes nothing else, which holds for the initiators of this
/// gateway alone.
/// **Errors** are told as they are: see `BackendFailure.init(_:)`.
package final class DiskBackend: LogicalUnitBackend, @unchecked Sendable {
    package private(set) var byteCount: UInt64
    package weak var client: (any BackendClient)?

    private let disk: MultipathDisk
    private let reactor: LibaioReactor
    private var queue: IOQueue!
    /// Asked in this turn, submitted at its end.
    private var batch: [IORequest] = []
    private var submitting: [IORequest] = []
    private var isScheduled = false
    private var underWayCount = 0
    /// The unit, while the disk works with memory that belongs to it.
    private var owner: (any BackendClient)?
    private var takesForceUnitAccess = true
    /// Writes with FUA by their token, for the case that the disk refuses it.
    private var throughWrites: [IORequest?] = []
    private var watcher: Task<Void, Never>?

    /// What a completion is the end of; in a request's token, above the unit's.
    private enum Stage: UInt64 { case only = 0, through = 1, beforeFlush = 2 }

    /// On the thread of `manager`, which was made with `hostsTarget` and has `disk` open.
    package init(disk: MultipathDisk, manager: PathManager) {
        self.disk = disk
        reactor = manager.reactor
        let events = disk.events
        byteCount = disk.currentCapacityByteCount
        queue = IOQueue(disk: disk) { [unowned self] in self.completed($0) }
        watcher = Task { [weak self, reactor] in
            for await event in events {
                guard case .capacityChanged = event.event else { continue }
                reactor.enqueue { [weak self] in self?.updateCapacity() }
            }
        }
    }

    deinit { watcher?.cancel() }

    package func close() { watcher?.cancel() }

    // MARK: what the disk offers

    package var isThinlyProvisioned: Bool {
        guard let provisioning = disk.device.provisioning, let limits = disk.device.blockLimits else { return false }
        return provisioning.supportsUnmap && limits.maxUnmapDescriptorCount > 0 && limits.maxUnmapBlockCount > 0
    }

    package var deallocatedContent: DeallocatedContent {
        disk.device.unmappedReadsZero ? .zeroesWhereDeallocated : .anything
    }

    package var writesZeroes: Bool { true }
    package var keepsWriteOrder: Bool { true }
    package var writesThrough: Bool { true }
    package var comparesAndWrites: Bool { (disk.device.blockLimits?.maxCompareAndWriteBlockCount ?? 0) > 0 }

    package var compareAndWriteLimitByteCount: Int {
        comparesAndWrites ? Int(disk.device.blockLimits!.maxCompareAndWriteBlockCount) * disk.blockSize : .max
    }

    private func updateCapacity() {
        guard byteCount != disk.currentCapacityByteCount else { return }
        byteCount = disk.currentCapacityByteCount
        client?.backendCapacityChanged()
    }

    // MARK: operations

    package func read(offset: UInt64, into memory: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress {
        begin(.read, offset, memory.count, memory.baseAddress, token)
    }

    package func write(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress {
        begin(.write, offset, memory.count, UnsafeMutableRawPointer(mutating: memory.baseAddress), token)
    }

    package func writeThrough(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress {
        var request = IORequest(
            .write, offset: offset, byteCount: memory.count, memory: UnsafeMutableRawPointer(mutating: memory.baseAddress),
            token: UInt64(token) | Stage.through.rawValue << 32, options: .forceUnitAccess)
        if takesForceUnitAccess {
            while throughWrites.count <= Int(token) { throughWrites.append(nil) }
            throughWrites[Int(token)] = request
        } else {
            request = Self.withoutForceUnitAccess(request)
        }
        return begin(request)
    }

    package func synchronize(token: UInt32) -> BackendProgress { begin(.flush, 0, 0, nil, token) }

    package func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        begin(.unmap, offset, Int(byteCount), nil, token)
    }

    package func writeZeroes(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        begin(.writeZeroes, offset, Int(byteCount), nil, token)
    }

    package func compareAndWrite(
        offset: UInt64, expected: UnsafeRawBufferPointer, new: UnsafeRawBufferPointer, token: UInt32
    ) -> BackendProgress {
        precondition(expected.baseAddress! + expected.count == new.baseAddress!, "the two halves are one buffer")
        return begin(
            .compareAndWrite, offset, expected.count, UnsafeMutableRawPointer(mutating: expected.baseAddress), token)
    }

    private func begin(
        _ operation: IORequest.Operation, _ offset: UInt64, _ byteCount: Int, _ memory: UnsafeMutableRawPointer?,
        _ token: UInt32
    ) -> BackendProgress {
        begin(IORequest(operation, offset: offset, byteCount: byteCount, memory: memory, token: UInt64(token)))
    }

    private func begin(_ request: IORequest) -> BackendProgress {
        if underWayCount == 0 { owner = client }
        underWayCount += 1
        submit(request)
        return .pending
    }

    /// At the end of the turn: a completion must not come from inside the call that began its operation.
    private func submit(_ request: IORequest) {
        batch.append(request)
        guard !isScheduled else { return }
        isScheduled = true
        reactor.schedule(self)
    }

    private static func withoutForceUnitAccess(_ request: IORequest) -> IORequest {
        var plain = request
        plain.options = []
        plain.token = request.token & 0xFFFF_FFFF | Stage.beforeFlush.rawValue << 32
        return plain
    }

    // MARK: ends

    private func completed(_ completions: UnsafeBufferPointer<IORequestCompletion>) {
        for completion in completions { ended(completion) }
    }

    private func ended(_ completion: IORequestCompletion) {
        let token = UInt32(truncatingIfNeeded: completion.token)
        switch (Stage(rawValue: completion.token >> 32), completion.error) {
        case (.through, .target(_, let sense?)?) where sense.key == .illegalRequest && sense.additional == .invalidFieldInCommand:
            // No FUA there (SBC-3 clause 5.33 leaves it optional: DPOFUA of MODE SENSE).
            if let request = throughWrites[Int(token)] {
                takesForceUnitAccess = false
                return submit(Self.withoutForceUnitAccess(request))
            }
        case (.beforeFlush, nil):
            return submit(IORequest(.flush, offset: 0, byteCount: 0, token: UInt64(token)))
        default: break
        }
        underWayCount -= 1
        let told = owner
        if underWayCount == 0 { owner = nil }
        told?.backendCompleted(token: token, failure: completion.error.map(BackendFailure.init))
    }
}

extension DiskBackend: TurnHandler {
    package func turn() {
        isScheduled = false
        swap(&batch, &submitting)
        submitting.withUnsafeBufferPointer { queue.submit($0) }
        submitting.removeAll(keepingCapacity: true)
    }
}
