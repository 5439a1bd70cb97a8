import SCSI

/// A solicited burst that is under way.
struct TargetR2T {
    var offset: UInt32 = 0
    var byteCount: UInt32 = 0
    var received: UInt32 = 0
    var nextDataSN: UInt32 = 0
    var r2tSN: UInt32 = 0
    var isActive = false
    /// Part of the transfer tag; another one after each recovery, so that late data is known as such.
    var isSecondTag = false
    /// A part was lost: the rest is thrown away, and asked for again at the end of the sequence.
    var isDamaged = false
    /// A PDU of unknown meaning was lost, and nothing came for it since.
    var isWatched = false
}

/// A SCSI command at the target, from its PDU to its status. Plain data in a slab.
struct TargetTask {
    enum State: UInt8 {
        case free
        /// Its data-out is not complete, or commands before it in CmdSN order are missing.
        case receiving
        /// The device server has it.
        case executing
        /// Its result waits to be sent.
        case responding
    }

    var state = State.free
    /// In CmdSN order: all commands before it have come.
    var isDelivered = false
    /// Its PDU is whole, immediate data included. Over several connections its turn may come before that.
    var isArrived = false
    var isImmediate = false
    /// A command whose status had left already, brought back by TASK REASSIGN.
    var isRestored = false
    /// Handed to the device server.
    var isTaken = false
    /// Nobody wants its result any more; it ends when the device server lets go.
    var isAbandoned = false
    /// Its tag is another command's by now.
    var isUntagged = false
    /// No memory was left for its data: TASK SET FULL.
    var isStarved = false
    var attribute = TaskAttribute.simple
    var isRead = false
    var isWrite = false
    var outstandingR2T: UInt8 = 0
    /// ``TargetConnection/key`` of the connection it is allegiant to.
    var connection: UInt32 = 0
    /// Part of the target transfer tag, so that data for an earlier user of the slot is known as such.
    var generation: UInt16 = 0
    var next: Int32 = -1
    var initiatorTaskTag: UInt32 = 0
    var cmdSN: UInt32 = 0
    var expectedByteCount: UInt32 = 0
    var lun = LogicalUnitNumber(rawValue: 0)
    var cdb = CommandDescriptorBlock(operationCode: 0)

    // Data-out.
    var buffer = TargetBuffer.none
    /// What is taken: the expected length, or the largest transfer where that is less.
    var wantedByteCount: UInt32 = 0
    var receivedByteCount: UInt32 = 0
    /// Unsolicited Data-Out may still come, up to this offset; its next offset and DataSN.
    var unsolicitedEnd: UInt32 = 0
    var unsolicitedOffset: UInt32 = 0
    var unsolicitedDataSN: UInt32 = 0
    var expectsUnsolicited = false
    /// As in ``TargetR2T``.
    var isUnsolicitedDamaged = false
    var isUnsolicitedWatched = false
    var recoveryCount: UInt16 = 0
    var nextR2TOffset: UInt32 = 0
    var nextR2TSN: UInt32 = 0
    var transfers = InlineArray<8, TargetR2T>(repeating: TargetR2T())

    // The result.
    var status = SCSIStatus.good
    var sense: SenseData?
    var usesDescriptorSense = false
    var data = UnsafeRawBufferPointer(start: nil, count: 0)
    var dataBuffer = TargetBuffer.none
    var dataByteCount: UInt32 = 0
    var sentByteCount: UInt32 = 0
    var burstByteCount: UInt32 = 0
    var dataSN: UInt32 = 0
    var residual = Residual.none
    /// From this DataSN and offset on (`baseBurst` bytes into a sequence) PDUs have `segmentByteCount` bytes; 0: none
    /// was sent yet.
    var segmentByteCount: UInt32 = 0
    var baseDataSN: UInt32 = 0
    var baseOffset: UInt32 = 0
    var baseBurst: UInt32 = 0
    /// The first DataSN that the initiator has not confirmed.
    var acknowledgedDataSN: UInt32 = 0
    var acknowledgedOffset: UInt32 = 0
    /// Of an R-Data SNACK; its copy must come in a SCSI Response. 0: none.
    var snackTag: UInt32 = 0
}

/// Tags to slots, open addressing in two flat arrays; at most half full.
struct TargetTagTable: ~Copyable {
    private let tags: UnsafeMutablePointer<UInt32>
    private let slots: UnsafeMutablePointer<Int32>
    private let mask: Int

    init(capacity: Int) {
        var size = 16
        while size < capacity * 2 { size *= 2 }
        mask = size - 1
        tags = .allocate(capacity: size)
        slots = .allocate(capacity: size)
        tags.initialize(repeating: 0, count: size)
        slots.initialize(repeating: -1, count: size)
    }

    deinit {
        tags.deallocate()
        slots.deallocate()
    }

    private func home(_ tag: UInt32) -> Int { Int(truncatingIfNeeded: tag &* 0x9E37_79B1 >> 12) & mask }

    func find(_ tag: UInt32) -> Int? {
        var index = home(tag)
        while slots[index] >= 0 {
            if tags[index] == tag { return Int(slots[index]) }
            index = (index + 1) & mask
        }
        return nil
    }

    /// `tag` must not be in the table.
    mutating func insert(_ tag: UInt32, slot: Int) {
        var index = home(tag)
        while slots[index] >= 0 { index = (index + 1) & mask }
        tags[index] = tag
        slots[index] = Int32(slot)
    }

    mutating func remove(_ tag: UInt32) {
        var hole = home(tag)
        while tags[hole] != tag || slots[hole] < 0 {
            guard slots[hole] >= 0 else { return }
            hole = (hole + 1) & mask
        }
        // Entries behind move up, unless their home lies between the hole and them.
        var index = (hole + 1) & mask
        while slots[index] >= 0 {
            let distance = (index - home(tags[index])) & mask
            if distance >= (index - hole) & mask {
                tags[hole] = tags[index]
                slots[hole] = slots[index]
                hole = index
            }
            index = (index + 1) & mask
        }
        slots[hole] = -1
    }
}
