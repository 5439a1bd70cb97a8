public import ISCSI
import SCSI

/// A logical unit's device server: SPC-4 and SBC-3 over a ``LogicalUnitBackend``.
///
/// All of it happens on one thread. Commands are executed in the order given; those that the backend
/// leaves pending overlap. ORDERED tasks and the atomic commands wait until they are alone.
public final class LogicalUnit: BackendClient {
    public let number: Int
    public let configuration: LogicalUnitConfiguration
    public let blockSize: Int
    public private(set) var blockCount: UInt64
    /// The 16 bytes of the NAA designator.
    public let identity: [UInt8]
    public let serial: String

    let backend: any LogicalUnitBackend
    unowned let node: TargetNode
    let pool: TargetBufferPool
    weak var client: (any DeviceClient)?

    var operations = OperationTable(capacity: 64)
    /// Commands that wait for an exclusive one to end, or for others to end before one of theirs.
    private var waiting: [DeviceCommand] = []
    private var exclusiveOperation = false
    private var managementWaits: [ManagementWait] = []
    var attentions: [UnitAttentions] = []
    var modes = ModeParameters()
    var persistentReservations = PersistentReservations()
    /// RESERVE (6) or (10), without extents.
    var reservationHolder: NexusIndex?
    var removalPreventers: [NexusIndex] = []
    var isStopped = false

    /// Transfers longer than this are refused; in bytes.
    static let maximumTransferByteCount = 32 << 20

    private struct ManagementWait {
        var token: UInt64
        var operations: [Int]
    }

    public init(
        configuration: LogicalUnitConfiguration, backend: any LogicalUnitBackend, node: TargetNode,
        pool: TargetBufferPool, client: any DeviceClient
    ) {
        number = configuration.number
        self.configuration = configuration
        self.backend = backend
        self.node = node
        self.pool = pool
        self.client = client
        blockSize = configuration.blockSize
        blockCount = backend.byteCount / UInt64(configuration.blockSize)
        serial = configuration.serial ?? UnitIdentity.serial(targetName: node.name, number: configuration.number)
        identity = configuration.identity ?? UnitIdentity.naa6(serial: serial)
        backend.client = self
        node.add(self)
    }

    // MARK: nexuses

    func nexusStarted(_ nexus: NexusIndex, attention: UnitAttentions) {
        while attentions.count <= nexus.rawValue { attentions.append([]) }
        attentions[nexus.rawValue].insert(attention)
    }

    /// An I_T nexus loss (SAM-5 clause 6.3.4): what is not persistent ends.
    func nexusEnded(_ nexus: NexusIndex) {
        if reservationHolder == nexus { reservationHolder = nil }
        removalPreventers.removeAll { $0 == nexus }
    }

    /// Owes every live nexus, but not `except`, a unit attention.
    func raise(_ attention: UnitAttentions, except: NexusIndex? = nil) {
        for index in attentions.indices where index != except?.rawValue && node.isActive(NexusIndex(rawValue: index)) {
            attentions[index].insert(attention)
        }
    }

    func raise(_ attention: UnitAttentions, for nexus: NexusIndex) {
        if attentions.indices.contains(nexus.rawValue) { attentions[nexus.rawValue].insert(attention) }
    }

    /// Whether something still refers to a nexus whose session is gone.
    func needsNexus(_ nexus: NexusIndex) -> Bool {
        persistentReservations.isRegistered(nexus)
            || operations.indices.contains { operations[$0].isUsed && operations[$0].command.nexus == nexus }
    }

    /// Its index will stand for another nexus.
    func nexusForgotten(_ nexus: NexusIndex) {
        if attentions.indices.contains(nexus.rawValue) { attentions[nexus.rawValue] = [] }
    }

    // MARK: commands

    /// Serves a command; its end is told to the client, for many commands before this returns.
    public func execute(_ command: DeviceCommand) {
        if !attentions[command.nexus.rawValue].isEmpty, reportsAttention(command.cdb.operationCode),
            let sense = attentions[command.nexus.rawValue].takeFirst()
        {
            return finish(command, .check(sense))
        }
        if node.portGroups[command.portGroup].state != .optimized, let sense = accessStateRefusal(command) {
            return finish(command, .check(sense))
        }
        if hasReservation, isReservationConflict(command) {
            return finish(command, .status(.reservationConflict))
        }
        if (!waiting.isEmpty || exclusiveOperation || command.attribute == .ordered), command.attribute != .headOfQueue,
            usesBackend(command.cdb.operationCode)
        {
            return wait(command)
        }
        dispatch(command)
    }

    /// INQUIRY, REPORT LUNS and REQUEST SENSE are served with a unit attention waiting (SPC-4 clause 5.14).
    private func reportsAttention(_ code: UInt8) -> Bool {
        code != OperationCode.inquiry && code != OperationCode.reportLUNs && code != OperationCode.requestSense
    }

    private func usesBackend(_ code: UInt8) -> Bool {
        switch code {
        case OperationCode.read6, OperationCode.read10, OperationCode.read12, OperationCode.read16,
            OperationCode.write6, OperationCode.write10, OperationCode.write12, OperationCode.write16,
            OperationCode.writeVerify10, OperationCode.writeVerify12, OperationCode.writeVerify16,
            OperationCode.verify10, OperationCode.verify12, OperationCode.verify16,
            OperationCode.synchronizeCache10, OperationCode.synchronizeCache16, OperationCode.writeSame10,
            OperationCode.writeSame16, OperationCode.unmap, OperationCode.compareAndWrite, OperationCode.orWrite16,
            OperationCode.writeAtomic16:
            true
        default: false
        }
    }

    private func dispatch(_ command: DeviceCommand) {
        switch command.cdb.operationCode {
        case OperationCode.read6, OperationCode.read10, OperationCode.read12, OperationCode.read16: read(command)
        case OperationCode.write6, OperationCode.write10, OperationCode.write12, OperationCode.write16,
            OperationCode.writeVerify10, OperationCode.writeVerify12, OperationCode.writeVerify16:
            write(command)
        case OperationCode.writeAtomic16: writeAtomic(command)
        case OperationCode.verify10, OperationCode.verify12, OperationCode.verify16: verify(command)
        case OperationCode.synchronizeCache10, OperationCode.synchronizeCache16: synchronizeCache(command)
        case OperationCode.prefetch10, OperationCode.prefetch16: prefetch(command)
        case OperationCode.writeSame10, OperationCode.writeSame16: writeSame(command)
        case OperationCode.unmap: unmap(command)
        case OperationCode.compareAndWrite: compareAndWrite(command)
        case OperationCode.orWrite16: orWrite(command)
        default:
            finish(command, control(command))
        }
    }

    /// Commands that touch no block.
    private func control(_ command: DeviceCommand) -> DeviceResult {
        switch command.cdb.operationCode {
        case OperationCode.testUnitReady:
            isStopped ? .check(SenseData(key: .notReady, additional: AdditionalSense(0x04, 0x02))) : .status(.good)
        case OperationCode.requestSense: requestSense(command)
        case OperationCode.inquiry: inquiry(command)
        case OperationCode.modeSense6, OperationCode.modeSense10: modeSense(command)
        case OperationCode.modeSelect6, OperationCode.modeSelect10: modeSelect(command)
        case OperationCode.reserve6, OperationCode.reserve10: reserve(command)
        case OperationCode.release6, OperationCode.release10: release(command)
        case OperationCode.startStopUnit: startStopUnit(command)
        case OperationCode.preventAllow: preventAllow(command)
        case OperationCode.readCapacity10: readCapacity10(command)
        case OperationCode.serviceActionIn16: serviceActionIn16(command)
        case OperationCode.readDefectData10, OperationCode.readDefectData12: readDefectData(command)
        case OperationCode.reportLUNs: Self.reportLUNs(command, node: node, pool: pool)
        case OperationCode.maintenanceIn: maintenanceIn(command)
        case OperationCode.maintenanceOut: maintenanceOut(command)
        case OperationCode.persistentReserveIn: persistentReserveIn(command)
        case OperationCode.persistentReserveOut: persistentReserveOut(command)
        default: .check(.unsupportedOperationCode)
        }
    }

    /// Ends a command that has no operation.
    func finish(_ command: DeviceCommand, _ result: DeviceResult) {
        var result = result
        if result.sense != nil, modes.usesDescriptorSense { result.senseFormat = .descriptor }
        client?.commandFinished(token: command.token, result: result)
    }

    /// Parameter data, cut to the allocation length, in a buffer of the pool.
    func answer(_ bytes: [UInt8], allocation: Int) -> DeviceResult {
        Self.answer(bytes, allocation: allocation, pool: pool)
    }

    static func answer(_ bytes: [UInt8], allocation: Int, pool: TargetBufferPool) -> DeviceResult {
        let count = min(bytes.count, allocation)
        guard count > 0 else { return .status(.good) }
        guard let buffer = pool.allocate(byteCount: count) else { return .status(.taskSetFull) }
        bytes.withUnsafeBytes { buffer.base!.copyMemory(from: $0.baseAddress!, byteCount: count) }
        var result = DeviceResult.status(.good)
        result.buffer = buffer
        result.data = UnsafeRawBufferPointer(start: buffer.base, count: count)
        return result
    }

    // MARK: order

    private func wait(_ command: DeviceCommand) {
        waiting.append(command)
        runWaiting()
    }

    /// For a command that must be alone: runs `body` now or when the operations under way have ended.
    /// True where it was put back to wait.
    func mustWaitToBeAlone(_ command: DeviceCommand) -> Bool {
        guard operations.count > 0 else { return false }
        // It was at the head of the queue, or there was none.
        waiting.insert(command, at: 0)
        return true
    }

    func beginExclusive() { exclusiveOperation = true }

    private func runWaiting() {
        while let next = waiting.first, !exclusiveOperation {
            if next.attribute == .ordered, operations.count > 0 { return }
            waiting.removeFirst()
            let waitingBefore = waiting.count
            dispatch(next)
            if next.attribute == .ordered, operations.count > 0 { exclusiveOperation = true }
            // Put back: it needs to be alone.
            if waiting.count > waitingBefore { return }
        }
    }

    /// An operation ended; its slot is free again.
    func operationEnded(_ index: Int) {
        operations.remove(index)
        if operations.count == 0 { exclusiveOperation = false }
        if !managementWaits.isEmpty { managementProgressed(index) }
        if !waiting.isEmpty { runWaiting() }
    }

    // MARK: task management

    public enum AbortScope {
        /// The command with this token.
        case command(token: UInt64)
        /// All commands of an I_T nexus, those of its earlier sessions included.
        case nexus(NexusIndex)
        /// All commands of one session: those whose token has these upper 32 bits.
        case session(UInt32)
        case all
    }

    /// Aborts what has not ended. Waiting commands are reported aborted at once; those in the backend's
    /// hands when it lets go of them. True where nothing has to be waited for; otherwise
    /// ``DeviceClient/taskManagementFinished(token:)`` follows: only then is it certain that no aborted
    /// write reaches the medium any more.
    public func abort(_ scope: AbortScope, managementToken: UInt64) -> Bool {
        let removed = waiting.filter { Self.matches($0, scope) }
        waiting.removeAll { Self.matches($0, scope) }
        for command in removed { client?.commandAborted(token: command.token) }
        var pending: [Int] = []
        for index in operations.indices where operations[index].isUsed && Self.matches(operations[index].command, scope) {
            operations[index].isAborted = true
            pending.append(index)
        }
        guard !pending.isEmpty else { return true }
        managementWaits.append(ManagementWait(token: managementToken, operations: pending))
        return false
    }

    static func matches(_ command: DeviceCommand, _ scope: AbortScope) -> Bool {
        switch scope {
        case .command(let token): command.token == token
        case .nexus(let nexus): command.nexus == nexus
        case .session(let session): UInt32(truncatingIfNeeded: command.token >> 32) == session
        case .all: true
        }
    }

    private func managementProgressed(_ operation: Int) {
        for index in managementWaits.indices { managementWaits[index].operations.removeAll { $0 == operation } }
        let done = managementWaits.filter { $0.operations.isEmpty }
        managementWaits.removeAll { $0.operations.isEmpty }
        for wait in done { client?.taskManagementFinished(token: wait.token) }
    }

    /// What LOGICAL UNIT RESET does beside aborting (SAM-5 clause 6.3.3).
    func reset(attention: UnitAttentions) {
        reservationHolder = nil
        removalPreventers = []
        modes.restoreDefaults()
        isStopped = false
        raise(attention)
    }

    /// Changes the capacity that the unit reports, for tests of what initiators do then; at most what the
    /// backend holds.
    public func setBlockCount(_ count: UInt64) {
        precondition(count > 0 && count <= backend.byteCount / UInt64(blockSize))
        blockCount = count
        raise(.capacityChanged)
    }
}
