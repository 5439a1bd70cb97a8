import AsyncIO
import MPIO
import NBD
import SCSI

/// One disk of the server: turns clients' requests into the disk's, and its ends into answers.
///
/// **Threads.** The manager's reactor, where disk and sockets live: no hand-over, and what the clients of one turn ask
/// enters the disk as one batch.
/// **FUA** is the disk's own for WRITE; where the disk refuses it, and for TRIM and WRITE_ZEROES, which have no such bit
/// in SCSI, a flush follows before the answer.
final class DiskExport: @unchecked Sendable {
    /// As new clients are told.
    private(set) var description: Export
    private let disk: MultipathDisk
    private let server: NBDServer
    private var queue: IOQueue?
    /// Asked in this turn, submitted at its end.
    @exclusivity(unchecked) private var batch: [IORequest] = []
    @exclusivity(unchecked) private var submitting: [IORequest] = []
    private var isScheduled = false
    private var takesForceUnitAccess = true
    private var watcher: Task<Void, Never>?

    /// What a completion is the end of; in the low byte of a request's token.
    private enum Stage: UInt64 {
        case only = 0
        /// A write with FUA, which the disk may refuse.
        case through = 1
        case beforeFlush = 2
    }

    /// On the reactor's thread.
    init(_ disk: MultipathDisk, server: NBDServer) throws(NBDServerError) {
        self.disk = disk
        self.server = server
        description = try Export(disk)
        let events = disk.events
        queue = IOQueue(disk: disk) { [self] in
            for completion in $0 { ended(completion) }
            self.server.settleTouched()
        }
        let reactor = server.reactor
        watcher = Task { [weak self] in
            for await event in events {
                guard case .capacityChanged = event.event else { continue }
                reactor.enqueue { [weak self] in self?.capacityChanged() }
            }
        }
    }

    /// The last request has ended: lets go of the disk.
    func close() {
        watcher?.cancel()
        queue = nil
    }

    /// A client keeps the size that it was told: the protocol has no way to tell it another.
    private func capacityChanged() {
        guard description.byteCount != disk.currentCapacityByteCount else { return }
        description.byteCount = disk.currentCapacityByteCount
        server.exportsChanged()
    }

    // MARK: requests

    /// Begins a request. False where it is answered with `notSupported` at once.
    func begin(_ request: Request, of connection: NBDConnection) -> Bool {
        if request.flags.contains(.fastZero), !disk.zeroesWithoutData { return false }
        submit(request, of: connection, through: takesForceUnitAccess)
        return true
    }

    private func submit(_ request: Request, of connection: NBDConnection, through: Bool) {
        let isForced = request.flags.contains(.forceUnitAccess)
        let operation: IORequest.Operation
        var stage = Stage.only
        switch request.command {
        case .read, .cache: operation = .read
        case .write:
            operation = .write
            if isForced { stage = through ? .through : .beforeFlush }
        case .flush: operation = .flush
        case .trim:
            operation = .unmap
            if isForced { stage = .beforeFlush }
        case .writeZeroes:
            operation = .writeZeroes
            if isForced { stage = .beforeFlush }
        default: preconditionFailure("the session hands out nothing else")
        }
        append(
            IORequest(
                operation, offset: request.offset, byteCount: request.byteCount, memory: request.memory,
                token: Self.token(connection.index, request.slot, stage), options: stage == .through ? .forceUnitAccess : []))
    }

    private static func token(_ connection: Int, _ slot: Int, _ stage: Stage) -> UInt64 {
        UInt64(connection) << 32 | UInt64(slot) << 8 | stage.rawValue
    }

    /// At the end of the turn: a completion must not come from inside the call that began its request.
    private func append(_ request: IORequest) {
        batch.append(request)
        guard !isScheduled else { return }
        isScheduled = true
        server.port.schedule(self)
    }

    private func ended(_ completion: IORequestCompletion) {
        let slot = Int(completion.token >> 8 & 0xFF_FFFF)
        guard let connection = server.connection(Int(completion.token >> 32)) else {
            preconditionFailure("a connection stays until its last request has ended")
        }
        switch (Stage(rawValue: completion.token & 0xFF), completion.error) {
        case (.through, .target(_, let sense?)?) where sense.key == .illegalRequest && sense.additional == .invalidFieldInCommand:
            // No FUA there (SBC-3 clause 5.33 leaves it optional: DPOFUA of MODE SENSE).
            takesForceUnitAccess = false
            submit(connection.session.request(slot), of: connection, through: false)
        case (.beforeFlush, nil):
            append(
                IORequest(.flush, offset: 0, byteCount: 0, token: Self.token(connection.index, slot, .only)))
        case (_, let error?):
            connection.completed(slot, ReplyError(error, to: connection.session.request(slot).command))
        case (_, nil): connection.completed(slot, nil)
        }
    }
}

extension DiskExport: TurnHandler {
    func turn() {
        isScheduled = false
        swap(&batch, &submitting)
        submitting.withUnsafeBufferPointer { queue?.submit($0) }
        submitting.removeAll(keepingCapacity: true)
    }
}

extension Export {
    fileprivate init(_ disk: MultipathDisk) throws(NBDServerError) {
        let device = disk.device
        guard disk.blockSize.nonzeroBitCount == 1, (512...65_536).contains(disk.blockSize) else {
            throw .blockSize(disk: disk.name, byteCount: disk.blockSize)
        }
        guard disk.name.utf8.count <= 4096 else { throw .nameTooLong(disk: disk.name) }
        var features: Features = []
        if device.isWriteProtected { features.insert(.readOnly) }
        if device.unmaps { features.insert(.trim) }
        // Whether WRITE SAME is there it has to have said; nobody is kept waiting to find out.
        if (device.blockLimits?.maxWriteSameBlockCount ?? 0) > 0 { features.insert(.fastZero) }
        self.init(
            name: disk.name, description: device.words, byteCount: disk.currentCapacityByteCount,
            minimumBlockByteCount: UInt32(disk.blockSize), preferredBlockByteCount: device.preferredBlockByteCount,
            features: features)
    }
}

extension DeviceDescription {
    fileprivate var unmaps: Bool {
        guard let provisioning, let limits = blockLimits else { return false }
        return provisioning.supportsUnmap && limits.maxUnmapDescriptorCount > 0 && limits.maxUnmapBlockCount > 0
    }

    /// What is written without being read first, and the steps in which the array likes requests: the next power of two.
    fileprivate var preferredBlockByteCount: UInt32 {
        let physical = Int(blockSize) << Int(min(physicalBlockExponent, 15))
        let granularity = Int(blockLimits?.optimalTransferGranularity ?? 0) * Int(blockSize)
        let wanted = min(max(physical, granularity, 4096), 1 << 20)
        let power = 1 << (Int.bitWidth - (wanted - 1).leadingZeroBitCount)
        return UInt32(max(power, Int(blockSize)))
    }

    fileprivate var words: String {
        let names = [vendor, product].filter { !$0.isEmpty }.joined(separator: " ")
        return [names, identity.map { "\($0)" } ?? ""].filter { !$0.isEmpty }.joined(separator: ", ")
    }
}
