import SCSI
import Timebase

/// What a slot of the command table holds.
enum TaskKind: UInt8 {
    case free
    /// A SCSI command that the target has not ended.
    case command
    /// A command whose outcome is known while a socket may still send from, or receive into, its buffer.
    case draining
    case taskManagement
    /// A command whose connection was lost: it keeps its tag and its CmdSN until it is known what
    /// became of it at the target.
    case lost
    /// A NOP-Out with a tag.
    case ping
    /// Text and Logout: one of each per session, looked after there.
    case control
}

/// What a command of a lost connection needs before it can be handed back.
enum LostTask: UInt8 {
    /// Not one byte of it was handed to the transport.
    case unsent
    /// Sent, but it changes nothing that could be seen later.
    case harmless
    /// A sent write: it must be known that it cannot land any more.
    case live
    /// ABORT TASK was sent for it.
    case aborting
    /// The target said that it is no more.
    case ended
}

/// What a control request of the session's own is for.
enum ControlPurpose: UInt8 {
    case owner
    /// Logout of the whole session.
    case sessionLogout
    /// Logout of the connection that carries it.
    case removal
    /// Logout, over another connection, of one that was lost.
    case recoveryLogout
    /// ABORT TASK for a command of a lost connection.
    case recoveryAbort
    /// TASK REASSIGN.
    case reassignment
    /// ABORT TASK for a write that TASK REASSIGN did not find.
    case orphanAbort
    /// A NOP-Out that takes the place of a lost CmdSN.
    case filler
}

/// One task of the session. Plain data in a slab; meaning of the fields by kind.
struct TaskSlot {
    var kind: TaskKind = .free
    var direction: DataDirection = .none
    var generation: UInt16 = 0
    var connection: UInt16 = 0
    /// Task management: the function.
    var function = TaskManagementFunction.abortTask
    /// The command was reported as overdue.
    var isOverdue = false
    /// Its status is here (in `completion`), and waits for data up to `heldUntilDataSN`.
    var isHeld = false
    /// Its allegiance was moved to another connection: the target may begin its data anew.
    var isReassigned = false
    /// It was sent on a connection that it no longer belongs to.
    var wasSentBefore = false
    /// Where the kind is `.lost`.
    var lost = LostTask.unsent
    /// Where the kind is `.control`, `.taskManagement` or `.ping`.
    var purpose = ControlPurpose.owner
    /// Of a control request with a purpose of the session's own: the connection that it is about.
    var subject: UInt16 = 0
    /// R2Ts taken whose sequences have not been queued to the end, unsolicited data not counted.
    var outstandingR2Ts: UInt16 = 0
    /// Bursts waiting in the connection's list, whatever their origin.
    var pendingBursts: UInt16 = 0
    var cmdSN: UInt32 = 0
    /// The next DataSN (read) or R2TSN (write) expected.
    var expectedDataSN: UInt32 = 0
    /// Task management: the tag of the task referred to.
    var referencedTaskTag: UInt32 = 0xFFFF_FFFF
    /// Level 1: what was asked for again begins here, and what was dropped since ends here; `heldUntilDataSN`: see `isHeld`.
    var askedDataSN: UInt32 = 0xFFFF_FFFF
    var droppedDataSN: UInt32 = 0
    var heldUntilDataSN: UInt32 = 0
    var token: UInt64 = 0
    var lun = LogicalUnitNumber(rawValue: 0)
    var buffer: UnsafeMutableRawPointer?
    /// The buffer where it is the session's own, because the command was detached from the caller's.
    var ownBuffer: UnsafeMutableRawPointer?
    var byteCount = 0
    /// Bytes that came (read).
    var receivedByteCount = 0
    /// End of the range already asked for by R2T or sent unsolicited; R2Ts go on from here. Where they come in any order, how
    /// much that is.
    var solicitedEnd = 0
    var submittedAt = Instant.zero
    /// The connection's output position at which the task's first PDU begins.
    var startPosition: UInt64 = 0
    /// The output position after the last byte queued from the buffer.
    var dataEndPosition: UInt64 = 0
    /// Neighbours in CmdSN order.
    var previous: UInt32 = CommandTable.none
    var next: UInt32 = CommandTable.none
    /// Draining only.
    var completion = CommandCompletion(token: 0, outcome: .targetFailure(responseCode: 0), residual: .none, transferredByteCount: 0)
}

/// The session's tasks, found by Initiator Task Tag: slot number in the low half, the slot's generation
/// in the high half, so that a stale or invented tag finds nothing.
///
/// Commands form a list in CmdSN order, which is the order of submission; a session that fails hands
/// them back in it.
struct CommandTable: ~Copyable {
    static let none: UInt32 = 0xFFFF_FFFF
    /// Slots for task management, text, NOP-Out and logout beside the commands.
    static let controlCapacity = 64

    let slots: UnsafeMutablePointer<TaskSlot>
    let capacity: Int
    let commandCapacity: Int
    private let free: UnsafeMutablePointer<UInt32>
    private var freeCount = 0
    /// Slots from here on were never used; they are taken only when no freed one is left, so that the
    /// memory in use stays as small as the depth in use.
    private var untouched = 0
    /// Commands, draining and lost ones included.
    private(set) var commandCount = 0
    private(set) var controlCount = 0
    private(set) var first = CommandTable.none
    private(set) var last = CommandTable.none

    init(commandCapacity: Int) {
        precondition((1...32_768).contains(commandCapacity), "command capacity must be 1…32768")
        self.commandCapacity = commandCapacity
        capacity = commandCapacity + CommandTable.controlCapacity
        slots = .allocate(capacity: capacity)
        free = .allocate(capacity: capacity)
    }

    deinit {
        releaseOwnBuffers()
        slots.deallocate()
        free.deallocate()
    }

    private func releaseOwnBuffers() {
        for slot in 0..<untouched { slots[slot].ownBuffer?.deallocate() }
    }

    /// As new, in the same memory.
    mutating func removeAll() {
        releaseOwnBuffers()
        untouched = 0
        freeCount = 0
        commandCount = 0
        controlCount = 0
        first = CommandTable.none
        last = CommandTable.none
    }

    var hasRoomForCommand: Bool { commandCount < commandCapacity }
    var hasRoomForControl: Bool { hasRoomForControls(1) }
    func hasRoomForControls(_ count: Int) -> Bool { controlCount + count <= CommandTable.controlCapacity }

    /// Slots ever used; those past it hold nothing that may be read.
    var usedCapacity: Int { untouched }

    @inline(__always)
    func tag(of slot: Int) -> UInt32 { UInt32(slots[slot].generation) << 16 | UInt32(slot) }

    /// The slot that carries this tag now, whatever its kind; nil where none does.
    @inline(__always)
    func slot(forTag tag: UInt32) -> Int? {
        let slot = Int(tag & 0xFFFF)
        guard slot < untouched, slots[slot].generation == UInt16(tag >> 16), slots[slot].kind != .free else { return nil }
        return slot
    }

    @inline(__always)
    private mutating func take() -> Int {
        if freeCount > 0 {
            freeCount -= 1
            return Int(free[freeCount])
        }
        let slot = untouched
        untouched += 1
        (slots + slot).initialize(to: TaskSlot())
        return slot
    }

    /// A slot at the end of the CmdSN order. Check ``hasRoomForCommand`` first.
    @inline(__always)
    mutating func takeCommand() -> Int {
        precondition(hasRoomForCommand)
        let slot = take()
        commandCount += 1
        slots[slot].kind = .command
        slots[slot].previous = last
        slots[slot].next = CommandTable.none
        if last == CommandTable.none { first = UInt32(slot) } else { slots[Int(last)].next = UInt32(slot) }
        last = UInt32(slot)
        return slot
    }

    mutating func takeControl(_ kind: TaskKind) -> Int {
        precondition(hasRoomForControl && kind != .free && kind != .command && kind != .draining && kind != .lost)
        let slot = take()
        controlCount += 1
        slots[slot].kind = kind
        slots[slot].purpose = .owner
        return slot
    }

    @inline(__always)
    mutating func release(_ slot: Int) {
        switch slots[slot].kind {
        case .free: preconditionFailure("slot released twice")
        case .command, .draining, .lost:
            commandCount -= 1
            let previous = slots[slot].previous
            let next = slots[slot].next
            if previous == CommandTable.none { first = next } else { slots[Int(previous)].next = next }
            if next == CommandTable.none { last = previous } else { slots[Int(next)].previous = previous }
        case .taskManagement, .ping, .control: controlCount -= 1
        }
        slots[slot].ownBuffer?.deallocate()
        slots[slot].ownBuffer = nil
        slots[slot].kind = .free
        slots[slot].generation &+= 1
        free[freeCount] = UInt32(slot)
        freeCount += 1
    }

    /// The slot after `slot` in CmdSN order.
    func slotAfter(_ slot: Int) -> Int? {
        let next = slots[slot].next
        return next == CommandTable.none ? nil : Int(next)
    }

    var firstSlot: Int? { first == CommandTable.none ? nil : Int(first) }

    /// The open command that carries this token, for task management; looks through all of them.
    func slot(forToken token: UInt64, includingDraining: Bool = false) -> Int? {
        var next = first
        while next != CommandTable.none {
            let slot = Int(next)
            if slots[slot].token == token, includingDraining || slots[slot].kind == .command { return slot }
            next = slots[slot].next
        }
        return nil
    }
}

/// A run of a write's data that goes to the target in Data-Out PDUs: unsolicited, or asked for by one R2T.
struct DataBurst {
    var slot: UInt32
    var next: UInt32
    var targetTransferTag: UInt32
    var dataSN: UInt32
    var offset: Int
    var end: Int
    /// The logical unit as the R2T named it, to be echoed.
    var lun: LogicalUnitNumber
}

/// The session's bursts in preallocated memory; each connection keeps a list of its own.
struct BurstTable: ~Copyable {
    let bursts: UnsafeMutablePointer<DataBurst>
    private let capacity: Int
    private var freeHead = CommandTable.none
    private var untouched = 0

    init(capacity: Int) {
        self.capacity = capacity
        bursts = .allocate(capacity: capacity)
    }

    deinit { bursts.deallocate() }

    /// As new, in the same memory.
    mutating func removeAll() {
        freeHead = CommandTable.none
        untouched = 0
    }

    mutating func take(_ burst: DataBurst) -> UInt32? {
        let index: UInt32
        if freeHead != CommandTable.none {
            index = freeHead
            freeHead = bursts[Int(index)].next
        } else {
            guard untouched < capacity else { return nil }
            index = UInt32(untouched)
            untouched += 1
        }
        (bursts + Int(index)).initialize(to: burst)
        return index
    }

    mutating func release(_ index: UInt32) {
        bursts[Int(index)].next = freeHead
        freeHead = index
    }
}
