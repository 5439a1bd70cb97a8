import SCSI

/// What a connection has sent with a StatSN and the initiator has not confirmed, at level 1 and above: for SNACK, and
/// for the connection that takes over (RFC 7143 sections 7.2.2 and 11.16). Bounded: beyond the bounds the oldest is
/// forgotten, and whoever asks for it is told so. One thread.
final class TargetRetention {
    struct Record {
        var header: BasicHeaderSegment
        /// Of what is no result of a command.
        var data: [UInt8] = []
        /// A result: all that is needed to send it again. Owns its data.
        var task: TargetTask?
        /// MaxBurstLength, in bytes.
        var burst: UInt32 = 0
        /// ``TargetTask/dataTag(_:)``
        var dataTag: UInt32 = 0

        /// Its data was given up to keep within the bound.
        var lacksData: Bool {
            guard let task else { return false }
            return task.dataByteCount > 0 && task.dataBuffer.base == nil
        }
    }

    private let service: TargetService
    private let recordLimit: Int
    private var records: [Record] = []
    private var first = 0
    /// Of ``Record/data``.
    private var plainByteCount = 0
    static let plainByteLimit = 1 << 20

    init(service: TargetService, recordLimit: Int) {
        self.service = service
        self.recordLimit = recordLimit
    }

    deinit { removeAll() }

    /// So many PDUs of a connection are kept.
    static func recordLimit(queueDepth: Int) -> Int { 2 * queueDepth + 1024 }

    var count: Int { records.count - first }

    // MARK: keeping

    func keep(_ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer) {
        // Answers to NOP-Out and Text: an initiator that confirms nothing decides how much it is.
        plainByteCount += data.count
        while plainByteCount > Self.plainByteLimit, count > 0 { removeFirst() }
        append(Record(header: header, data: Array(data)))
    }

    /// Takes the task's data.
    func keep(_ header: BasicHeaderSegment, _ task: UnsafeMutablePointer<TargetTask>, dataTag: UInt32, burst: Int) {
        var copy = task.pointee
        copy.buffer = .none
        task.pointee.dataBuffer = .none
        makeRoom(&copy)
        append(Record(header: header, task: copy, burst: UInt32(burst), dataTag: dataTag))
    }

    private func makeRoom(_ task: inout TargetTask) {
        let byteCount = task.dataBuffer.capacity
        guard byteCount > 0 else { return }
        let limit = service.settings.retainedByteLimit
        var oldest = first
        while service.retainedByteCount + byteCount > limit, oldest < records.count {
            dropData(oldest)
            oldest += 1
        }
        if service.retainedByteCount + byteCount > limit {
            service.pool.release(task.dataBuffer)
            task.dataBuffer = .none
        } else {
            service.retainedByteCount += byteCount
        }
    }

    private func append(_ record: Record) {
        if count >= recordLimit { removeFirst() }
        records.append(record)
    }

    private func dropData(_ index: Int) {
        guard let buffer = records[index].task?.dataBuffer, buffer.base != nil else { return }
        service.retainedByteCount -= buffer.capacity
        service.pool.release(buffer)
        records[index].task?.dataBuffer = .none
    }

    private func removeFirst() {
        dropData(first)
        plainByteCount -= records[first].data.count
        records[first].data = []
        first += 1
        guard first > 64, first * 2 > records.count else { return }
        records.removeSubrange(..<first)
        first = 0
    }

    func confirm(upTo expStatSN: UInt32) {
        while first < records.count, SerialNumber.isBefore(records[first].header.statSN, expStatSN) { removeFirst() }
        if first == records.count {
            records.removeAll(keepingCapacity: true)
            first = 0
        }
    }

    func removeAll() {
        for index in first..<records.count { dropData(index) }
        records = []
        first = 0
        plainByteCount = 0
    }

    /// The output of a connection that ended may still name the data.
    func shareData(with connection: TargetConnection) {
        for record in records[first...] {
            if let buffer = record.task?.dataBuffer { connection.output.adopt(service.pool.share(buffer)) }
        }
    }

    // MARK: finding

    func record(statSN: UInt32) -> Record? {
        guard let oldest = records[first...].first else { return nil }
        let index = Int(statSN &- oldest.header.statSN)
        guard index < count, records[first + index].header.statSN == statSN else { return nil }
        return records[first + index]
    }

    private func index(where matches: (Record) -> Bool) -> Int? {
        records.indices.reversed().first { $0 >= first && matches(records[$0]) }
    }

    func record(tag: UInt32) -> Record? { index { $0.task?.initiatorTaskTag == tag }.map { records[$0] } }
    func record(dataTag: UInt32) -> Record? { index { $0.task != nil && $0.dataTag == dataTag }.map { records[$0] } }

    /// The result of a command; nil where it cannot be sent again.
    func task(_ tag: UInt32) -> TargetTask? {
        guard let record = record(tag: tag), let task = record.task, !record.lacksData else { return nil }
        return task
    }

    /// Hands a result's data over, and forgets the result.
    func take(_ tag: UInt32) -> TargetBuffer {
        guard let index = index(where: { $0.task?.initiatorTaskTag == tag }), let task = records[index].task else { return .none }
        service.retainedByteCount -= task.dataBuffer.capacity
        records[index].task = nil
        return task.dataBuffer
    }

    /// Changes the record of a StatSN.
    func update(_ statSN: UInt32, _ change: (inout Record) -> Void) {
        guard let index = index(where: { $0.header.statSN == statSN }) else { return }
        change(&records[index])
    }
}

/// Data-In of a command as it was cut into PDUs.
struct TargetDataIn {
    struct Piece {
        var offset: Int
        var count: Int
        var endsBurst: Bool
        var isLast: Bool
    }

    var initiatorTaskTag: UInt32
    var lun: LogicalUnitNumber
    var dataTag: UInt32
    var data: UnsafeRawBufferPointer
    /// An owner of its own.
    var buffer: TargetBuffer
    private let baseDataSN: UInt32
    private let baseOffset: Int
    private let baseBurst: Int
    private let segment: Int
    private let burst: Int

    init(_ task: TargetTask, dataTag: UInt32, burst: UInt32, buffer: TargetBuffer) {
        initiatorTaskTag = task.initiatorTaskTag
        lun = task.lun
        self.dataTag = dataTag
        data = task.data
        self.buffer = buffer
        baseDataSN = task.baseDataSN
        baseOffset = Int(task.baseOffset)
        baseBurst = Int(task.baseBurst)
        segment = max(1, Int(task.segmentByteCount))
        self.burst = max(1, Int(burst))
    }

    /// `dataSN` must not lie before the base.
    func piece(_ dataSN: UInt32) -> Piece {
        var index = Int(dataSN &- baseDataSN)
        let leading = min(burst - baseBurst, data.count - baseOffset)
        let leadingPieces = (leading + segment - 1) / segment
        var start = baseOffset
        var end = baseOffset + leading
        if index >= leadingPieces {
            index -= leadingPieces
            let pieces = (burst + segment - 1) / segment
            start = end + index / pieces * burst
            end = min(start + burst, data.count)
            index %= pieces
        }
        let offset = min(start + index * segment, data.count)
        let count = max(0, min(segment, end - offset))
        return Piece(offset: offset, count: count, endsBurst: offset + count >= end, isLast: offset + count >= data.count)
    }

    /// One past the last DataSN.
    var endDataSN: UInt32 {
        let rest = data.count - baseOffset
        let leading = min(burst - baseBurst, rest)
        let full = (rest - leading) / burst
        let tail = (rest - leading) % burst
        let count =
            (leading + segment - 1) / segment + full * ((burst + segment - 1) / segment) + (tail + segment - 1) / segment
        return baseDataSN &+ UInt32(count)
    }
}

/// What is to be sent again; what is asked for is sent as there is room.
enum TargetResend {
    /// PDUs with these StatSNs.
    case status(next: UInt32, end: UInt32)
    /// Data-In PDUs with these DataSNs. `last`: the header of the very last one, where it has the status.
    case data(TargetDataIn, next: UInt32, end: UInt32, last: BasicHeaderSegment?)

    func giveBack(to pool: TargetBufferPool) {
        if case .data(let transfer, _, _, _) = self { pool.release(transfer.buffer) }
    }
}

extension TargetTask {
    /// The tag by which the initiator confirms data (DataACK SNACK).
    func dataTag(_ slot: Int) -> UInt32 { UInt32(generation & 0x7FF) << 20 | UInt32(slot) << 4 | 0xF }

    /// PDUs get no longer than the initiator takes now; those of one length are numbered by it.
    mutating func fit(to limit: UInt32) {
        guard segmentByteCount == 0 || segmentByteCount > limit else { return }
        segmentByteCount = limit
        baseDataSN = dataSN
        baseOffset = sentByteCount
        baseBurst = burstByteCount
    }

    /// Data before this DataSN is there. False: it was not sent, or was confirmed before.
    mutating func confirm(_ dataSN: UInt32, burst: UInt32) -> Bool {
        guard dataSN > acknowledgedDataSN, dataSN <= self.dataSN, dataSN >= baseDataSN, segmentByteCount > 0 else { return false }
        acknowledgedDataSN = dataSN
        acknowledgedOffset =
            dataSN == self.dataSN
            ? sentByteCount : UInt32(TargetDataIn(self, dataTag: 0, burst: burst, buffer: .none).piece(dataSN).offset)
        return true
    }

    /// Everything that is not confirmed is to be sent anew, cut as it then fits.
    mutating func rewind() {
        dataSN = acknowledgedDataSN
        sentByteCount = acknowledgedOffset
        burstByteCount = 0
        segmentByteCount = 0
    }

    /// Behind its length (RFC 7143 section 11.4.7); empty where there is none.
    var senseSegment: [UInt8] {
        guard let sense else { return [] }
        let bytes = sense.encode(format: usesDescriptorSense ? .descriptor : .fixed)
        return [UInt8(truncatingIfNeeded: bytes.count >> 8), UInt8(truncatingIfNeeded: bytes.count)] + bytes
    }
}

extension BasicHeaderSegment {
    /// A PDU of a target that uses up a StatSN.
    var usesStatSN: Bool {
        switch opcode {
        case .readyToTransfer, .loginResponse: false
        case .dataIn: dataInFlags.contains(.status)
        case .nopIn: initiatorTaskTag != Self.reservedTag
        default: true
        }
    }

    /// A of a Data-In (section 11.7.2).
    mutating func askForAcknowledgement(_ lun: LogicalUnitNumber, _ tag: UInt32) {
        dataInFlags = dataInFlags.union(.acknowledge)
        self.lun = lun
        targetTransferTag = tag
    }
}
