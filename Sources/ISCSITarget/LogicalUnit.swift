import AsyncIO
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
    @exclusivity(unchecked) public private(set) var blockCount: UInt64
    /// The 16 bytes of the NAA designator.
    public private(set) var identity: [UInt8]
    public private(set) var serial: String

    let backend: any LogicalUnitBackend
    /// Where reservations outlive a loss of power; nil: they do not.
    let reservationStore: (any ReservationStore)?
    unowned let node: TargetNode
    let pool: TargetBufferPool
    weak var client: (any DeviceClient)?

    @exclusivity(unchecked) var operations = OperationTable(capacity: 64)
    /// Commands that wait for an exclusive one to end, or for others to end before one of theirs.
    @exclusivity(unchecked) private var waiting: [DeviceCommand] = []
    @exclusivity(unchecked) private var exclusiveOperation = false
    /// What is under way reads, compares and writes: also the head of the queue must not come between.
    @exclusivity(unchecked) private var isUpdating = false
    @exclusivity(unchecked) private var abortWaits: [AbortWait] = []
    @exclusivity(unchecked) var attentions: [UnitAttentions] = []
    @exclusivity(unchecked) var modes = ModeState()
    @exclusivity(unchecked) var persistentReservations = PersistentReservations()
    /// RESERVE (6) or (10), without extents.
    @exclusivity(unchecked) var reservationHolder: NexusIndex?
    var removalPreventers: [NexusIndex] = []
    @exclusivity(unchecked) var isStopped = false
    /// What is saved of persistent reservations could not be read: nobody is let past one that may exist (SPC-4
    /// clause 5.13.5).
    @exclusivity(unchecked) var lacksReservations = false

    /// Transfers longer than this are refused; in bytes.
    static let maximumTransferByteCount = 32 << 20

    /// What waits until aborted operations have ended.
    private struct AbortWait {
        var end: End
        var operations: [Int]

        enum End {
            case nobody
            case management(token: UInt64)
            /// PREEMPT AND ABORT
            case command(DeviceCommand, DeviceResult)
        }
    }

    public init(
        configuration: LogicalUnitConfiguration, backend: any LogicalUnitBackend, node: TargetNode,
        pool: TargetBufferPool, client: any DeviceClient, reservationStore: (any ReservationStore)? = nil
    ) {
        number = configuration.number
        self.configuration = configuration
        self.backend = backend
        self.reservationStore = reservationStore
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
        nexusRemembered(nexus)
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

    /// A nexus was named that has no session yet.
    func nexusRemembered(_ nexus: NexusIndex) {
        while attentions.count <= nexus.rawValue { attentions.append([]) }
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
        let request: SCSICommand
        switch command.request {
        case .success(let asked): request = asked
        case .failure(let refusal): return finish(command, .check(refusal))
        }
        if lacksReservations, let sense = missingReservationRefusal(request) { return finish(command, .check(sense)) }
        if node.portGroups[command.portGroup].state != .optimized,
            let sense = accessStateRefusal(request, command.portGroup)
        {
            return finish(command, .check(sense))
        }
        if hasReservation, isReservationConflict(request, command.nexus) {
            return finish(command, .status(.reservationConflict))
        }
        if isUpdating, command.attribute == .headOfQueue, usesBackend(request) {
            waiting.insert(command, at: 0)
            return
        }
        if (!waiting.isEmpty || exclusiveOperation || command.attribute == .ordered), command.attribute != .headOfQueue,
            usesBackend(request)
        {
            return wait(command)
        }
        dispatch(command, request)
    }

    /// INQUIRY, REPORT LUNS and REQUEST SENSE are served with a unit attention waiting (SPC-4 clause 5.14).
    private func reportsAttention(_ code: UInt8) -> Bool {
        code != OperationCode.inquiry && code != OperationCode.reportLUNs && code != OperationCode.requestSense
    }

    private func usesBackend(_ request: SCSICommand) -> Bool {
        switch request {
        case .read, .write, .writeAndVerify, .writeAtomic, .verify, .synchronizeCache, .writeSame, .unmap,
            .compareAndWrite, .orWrite, .getLBAStatus:
            true
        default: false
        }
    }

    private func dispatch(_ command: DeviceCommand, _ request: SCSICommand) {
        switch request {
        case .read(let range, _): read(command, range)
        case .write(let range, let options):
            write(command, range, forcesUnitAccess: options.contains(.forceUnitAccess))
        case .writeAndVerify(let range, _, _): write(command, range, forcesUnitAccess: false)
        case .writeAtomic(let range, let options, let boundary):
            writeAtomic(command, range, options, boundaryBlockCount: boundary)
        case .verify(let range, _, let mode): verify(command, range, mode)
        case .synchronizeCache(let range, _): synchronizeCache(command, range)
        case .preFetch(let range, _): prefetch(command, range)
        case .writeSame(let range, let options): writeSame(command, range, options)
        case .getLBAStatus(let lba, let count): getLBAStatus(command, from: lba, allocation: Int(count))
        case .unmap(let anchor, let count): unmap(command, anchor: anchor, parameterByteCount: Int(count))
        case .compareAndWrite(let range, let options):
            compareAndWrite(command, range, forcesUnitAccess: options.contains(.forceUnitAccess))
        case .orWrite(let range, let options):
            orWrite(command, range, forcesUnitAccess: options.contains(.forceUnitAccess))
        case .persistentReserveOut(let action, let type, let count):
            persistentReserveOut(command, action, type, parameterByteCount: Int(count))
        default: finish(command, control(command, request))
        }
    }

    /// Commands that touch no block and end at once.
    private func control(_ command: DeviceCommand, _ request: SCSICommand) -> DeviceResult {
        switch request {
        case .testUnitReady:
            isStopped ? .check(SenseData(key: .notReady, additional: .initializingCommandRequired)) : .status(.good)
        case .requestSense(let format, let count): requestSense(command.nexus, format, allocation: Int(count))
        case .inquiry(let page, let count): inquiry(page, portGroup: command.portGroup, allocation: Int(count))
        case .modeSense(let request): modeSense(request)
        case .modeSelect(let request): modeSelect(command, request)
        case .reserve: reserve(command.nexus)
        case .release: release(command.nexus)
        case .startStopUnit(let request): startStopUnit(request)
        case .preventAllowMediumRemoval(let removal): preventAllow(command.nexus, removal)
        case .readCapacity10: readCapacity10()
        case .readCapacity16(let count): readCapacity16(allocation: Int(count))
        case .readDefectData(let request):
            answer(request.encodeEmptyList(), allocation: Int(request.allocationByteCount))
        case .reportLUNs(let selection, let count):
            Self.reportLUNs(selection, allocation: Int(count), node: node, pool: pool)
        case .reportTargetPortGroups(let isExtended, let count):
            answer(portGroupReport(isExtended: isExtended).encode(), allocation: Int(count))
        case .setTargetPortGroups(let count): setTargetPortGroups(command, parameterByteCount: Int(count))
        case .reportSupportedOperationCodes(let query, let withTimeouts, let count):
            reportSupportedOperationCodes(query, withTimeouts: withTimeouts, allocation: Int(count))
        case .persistentReserveIn(let action, let count): persistentReserveIn(action, allocation: Int(count))
        // Those of `dispatch`.
        case .read, .write, .writeAndVerify, .writeAtomic, .verify, .synchronizeCache, .preFetch, .writeSame, .unmap,
            .compareAndWrite, .orWrite, .getLBAStatus, .persistentReserveOut:
            .check(.unsupportedOperationCode)
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

    func beginExclusive() {
        exclusiveOperation = true
        isUpdating = true
    }

    private func runWaiting() {
        while let next = waiting.first, !exclusiveOperation {
            if next.attribute == .ordered, operations.count > 0 { return }
            waiting.removeFirst()
            let waitingBefore = waiting.count
            // Only what was understood is made to wait.
            if case .success(let request) = next.request { dispatch(next, request) }
            if next.attribute == .ordered, operations.count > 0 { exclusiveOperation = true }
            // Put back: it needs to be alone.
            if waiting.count > waitingBefore { return }
        }
    }

    /// An operation ended; its slot is free again.
    func operationEnded(_ index: Int) {
        operations.remove(index)
        if operations.count == 0 {
            exclusiveOperation = false
            isUpdating = false
        }
        if !abortWaits.isEmpty { abortProgressed(index) }
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
    /// write reaches the medium any more. Commands with the tokens of `spared` go on.
    public func abort(_ scope: AbortScope, sparing spared: [UInt64] = [], managementToken: UInt64?) -> Bool {
        let pending = abortAll { Self.matches($0, scope) && !spared.contains($0.token) }
        guard !pending.isEmpty else { return true }
        // A session that is made anew is not told of their end, and believes them dead (RFC 7143 section 6.3.5).
        if case .session = scope, !backend.keepsWriteOrder { exclusiveOperation = true }
        abortWaits.append(
            AbortWait(end: managementToken.map { .management(token: $0) } ?? .nobody, operations: pending))
        return false
    }

    /// PREEMPT AND ABORT ends when the commands that it aborts have (SPC-4 clause 5.13.11.2.6).
    func abort(_ nexuses: [NexusIndex], then command: DeviceCommand, _ result: DeviceResult) {
        for nexus in nexuses { client?.nexusPreempted(nexus, unit: self) }
        let pending = abortAll { nexuses.contains($0.nexus) }
        guard !pending.isEmpty else { return finish(command, result) }
        abortWaits.append(AbortWait(end: .command(command, result), operations: pending))
    }

    /// The operations that have to end.
    private func abortAll(_ matches: (DeviceCommand) -> Bool) -> [Int] {
        let removed = waiting.filter(matches)
        waiting.removeAll(where: matches)
        for command in removed { client?.commandAborted(token: command.token) }
        var pending: [Int] = []
        for index in operations.indices where operations[index].isUsed && matches(operations[index].command) {
            operations[index].isAborted = true
            pending.append(index)
        }
        // A PREEMPT AND ABORT may be aborted while it waits itself: it is not answered then.
        for index in abortWaits.indices {
            guard case .command(let command, _) = abortWaits[index].end, matches(command) else { continue }
            abortWaits[index].end = .nobody
            client?.commandAborted(token: command.token)
        }
        return pending
    }

    static func matches(_ command: DeviceCommand, _ scope: AbortScope) -> Bool {
        switch scope {
        case .command(let token): command.token == token
        case .nexus(let nexus): command.nexus == nexus
        case .session(let session): UInt32(truncatingIfNeeded: command.token >> 32) == session
        case .all: true
        }
    }

    private func abortProgressed(_ operation: Int) {
        for index in abortWaits.indices { abortWaits[index].operations.removeAll { $0 == operation } }
        let done = abortWaits.filter { $0.operations.isEmpty }
        abortWaits.removeAll { $0.operations.isEmpty }
        for wait in done {
            switch wait.end {
            case .nobody: break
            case .management(let token): client?.taskManagementFinished(token: token)
            case .command(let command, let result): finish(command, result)
            }
        }
    }

    /// What LOGICAL UNIT RESET does beside aborting (SAM-5 clause 6.3.3).
    func reset(attention: UnitAttentions) {
        reservationHolder = nil
        removalPreventers = []
        modes.restoreDefaults()
        isStopped = false
        raise(attention)
    }

    /// The capacity of the backend, in blocks.
    public var backendBlockCount: UInt64 { backend.byteCount / UInt64(blockSize) }

    public func backendCapacityChanged() {
        guard backendBlockCount > 0, backendBlockCount != blockCount else { return }
        blockCount = backendBlockCount
        raise(.capacityChanged)
    }

    /// Changes the capacity that the unit reports, for tests of what initiators do then; at most what the
    /// backend holds.
    public func setBlockCount(_ count: UInt64) {
        precondition(count > 0 && count <= backendBlockCount)
        guard count != blockCount else { return }
        blockCount = count
        raise(.capacityChanged)
    }

    /// Makes the unit another one, for tests of what initiators do then; 16 bytes of an NAA designator.
    public func setIdentity(_ identity: [UInt8], serial: String) {
        precondition(identity.count == 16)
        guard identity != self.identity || serial != self.serial else { return }
        self.identity = identity
        self.serial = serial
        raise(.inquiryDataChanged)
    }

    /// A loss of power: what is not saved is gone (SAM-5 clause 6.3.1). Where that can't be read back, the unit is not
    /// ready until it can.
    func powerCycle() throws(IOError) {
        reservationHolder = nil
        removalPreventers = []
        modes.restoreDefaults()
        isStopped = false
        lacksReservations = true
        try restoreReservations()
        lacksReservations = false
    }

    private func missingReservationRefusal(_ request: SCSICommand) -> SenseData? {
        switch request {
        case .inquiry, .reportLUNs, .requestSense, .reportTargetPortGroups, .reportSupportedOperationCodes: return nil
        case .testUnitReady:
            do {
                try restoreReservations()
                lacksReservations = false
                return nil
            } catch {
                // As at the restart, of which the problem was told.
                return SenseData(key: .notReady, additional: .manualInterventionRequired)
            }
        default: return SenseData(key: .notReady, additional: .manualInterventionRequired)
        }
    }
}
