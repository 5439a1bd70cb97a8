import SCSI
import Testing

@testable import ISCSI

/// A little target: one disk in memory, commands answered at once, everything the initiator must
/// respect checked.
struct ModelTarget {
    var disk: [UInt8]
    var dataInByteCount = 4096
    var burstByteCount = 16_384
    var collapsesStatus = true
    private var writes: [UInt32: PendingWrite] = [:]
    private var nextTransferTag: UInt32 = 0x5000

    struct PendingWrite {
        var lun: LogicalUnitNumber
        var diskOffset: Int
        var byteCount: Int
        var received = 0
        var nextDataSN: UInt32 = 0
        /// The unsolicited sequence is still open.
        var unsolicitedOpen: Bool
        /// Offset up to which R2Ts were sent, and those unanswered: tag, next offset, end, next DataSN.
        var asked = 0
        var open: [(tag: UInt32, offset: Int, end: Int, dataSN: UInt32)] = []
        var r2tSN: UInt32 = 0
    }

    init(byteCount: Int) { disk = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) } }

    mutating func serve(_ rig: SessionRig) {
        for pdu in rig.sent() {
            switch pdu.opcode {
            case .scsiCommand: command(pdu, rig)
            case .dataOut: dataOut(pdu, rig)
            default: Issue.record("unexpected \(pdu.opcode)")
            }
        }
        rig.deliver()
    }

    private mutating func command(_ pdu: SentPDU, _ rig: SessionRig) {
        #expect(pdu.header.cmdSN == rig.expCmdSN, "commands come in CmdSN order")
        #expect(SerialNumber.isAtMost(pdu.header.cmdSN, rig.maxCmdSN), "within the window")
        rig.expCmdSN &+= 1
        rig.maxCmdSN &+= 1
        let tag = pdu.header.initiatorTaskTag
        let offset = Int(pdu.header.cdb.field(at: 2, width: 8))
        let byteCount = Int(pdu.header.expectedDataTransferByteCount)
        let parameters = rig.parameters
        if pdu.header.commandFlags.contains(.read) {
            #expect(pdu.header.isFinal)
            read(tag, offset, byteCount, rig)
        } else if pdu.header.commandFlags.contains(.write) {
            #expect(parameters.immediateData || pdu.data.isEmpty)
            #expect(pdu.data.count <= min(parameters.firstBurstByteCount, parameters.maxSendDataSegmentByteCount, byteCount))
            disk.replaceSubrange(offset..<(offset + pdu.data.count), with: pdu.data)
            var write = PendingWrite(
                lun: pdu.header.lun, diskOffset: offset, byteCount: byteCount, received: pdu.data.count,
                unsolicitedOpen: !pdu.header.isFinal)
            if parameters.initialR2T { #expect(pdu.header.isFinal) }
            if !parameters.initialR2T, !pdu.header.isFinal { #expect(pdu.data.count < min(parameters.firstBurstByteCount, byteCount)) }
            write.asked = write.received
            writes[tag] = write
            goOn(tag, rig)
        } else {
            rig.end.put(.scsiResponse(tag: tag, status: .good, numbers: rig.nextNumbers()))
        }
    }

    private func read(_ tag: UInt32, _ offset: Int, _ byteCount: Int, _ rig: SessionRig) {
        var sent = 0
        var dataSN: UInt32 = 0
        while sent < byteCount {
            let count = min(dataInByteCount, byteCount - sent)
            let isLast = sent + count == byteCount
            let data = Array(disk[(offset + sent)..<(offset + sent + count)])
            if isLast, collapsesStatus {
                rig.end.put(.dataIn(
                    tag: tag, status: .good, dataSN: dataSN, bufferOffset: UInt32(sent), byteCount: count,
                    numbers: rig.nextNumbers()), data)
            } else {
                rig.end.put(.dataIn(
                    tag: tag, flags: isLast || dataSN % 4 == 3 ? .final : [], dataSN: dataSN, bufferOffset: UInt32(sent),
                    byteCount: count, numbers: rig.numbers), data)
            }
            sent += count
            dataSN += 1
        }
        if !collapsesStatus || byteCount == 0 {
            rig.end.put(.scsiResponse(tag: tag, status: .good, expDataSN: dataSN, numbers: rig.nextNumbers()))
        }
    }

    private mutating func dataOut(_ pdu: SentPDU, _ rig: SessionRig) {
        let tag = pdu.header.initiatorTaskTag
        guard var write = writes[tag] else {
            Issue.record("Data-Out for no write")
            return
        }
        let offset = Int(pdu.header.bufferOffset)
        #expect(pdu.data.count <= rig.parameters.maxSendDataSegmentByteCount)
        if pdu.header.targetTransferTag == BasicHeaderSegment.reservedTag {
            #expect(write.unsolicitedOpen && offset == write.received && pdu.header.dataSN == write.nextDataSN)
            write.nextDataSN += 1
            let limit = min(rig.parameters.firstBurstByteCount, write.byteCount)
            #expect(offset + pdu.data.count <= limit)
            #expect(pdu.header.isFinal == (offset + pdu.data.count == limit))
            if pdu.header.isFinal { write.unsolicitedOpen = false }
            write.asked = offset + pdu.data.count
        } else if let index = write.open.firstIndex(where: { $0.tag == pdu.header.targetTransferTag }) {
            #expect(pdu.header.lun == write.lun)
            #expect(offset == write.open[index].offset && pdu.header.dataSN == write.open[index].dataSN)
            write.open[index].offset += pdu.data.count
            write.open[index].dataSN += 1
            #expect(pdu.header.isFinal == (write.open[index].offset == write.open[index].end))
            #expect(write.open[index].offset <= write.open[index].end)
            if pdu.header.isFinal { write.open.remove(at: index) }
        } else {
            Issue.record("Data-Out with a tag that no R2T gave")
        }
        disk.replaceSubrange((write.diskOffset + offset)..<(write.diskOffset + offset + pdu.data.count), with: pdu.data)
        write.received += pdu.data.count
        writes[tag] = write
        goOn(tag, rig)
    }

    /// Asks for more, or ends the write.
    private mutating func goOn(_ tag: UInt32, _ rig: SessionRig) {
        guard var write = writes[tag], !write.unsolicitedOpen else { return }
        if write.received == write.byteCount {
            writes[tag] = nil
            rig.end.put(.scsiResponse(tag: tag, status: .good, expDataSN: write.r2tSN, numbers: rig.nextNumbers()))
            return
        }
        while write.open.count < rig.parameters.maxOutstandingR2T, write.asked < write.byteCount {
            let count = min(burstByteCount, rig.parameters.maxBurstByteCount, write.byteCount - write.asked)
            nextTransferTag += 1
            rig.end.put(.readyToTransfer(
                lun: write.lun, tag: tag, targetTransferTag: nextTransferTag, r2tSN: write.r2tSN,
                bufferOffset: UInt32(write.asked), desiredDataTransferByteCount: UInt32(count), numbers: rig.numbers))
            write.open.append((nextTransferTag, write.asked, write.asked + count, 0))
            write.asked += count
            write.r2tSN += 1
        }
        writes[tag] = write
    }
}

@Suite struct InitiatorSessionTransferTests {
    static let sizes = [1, 3, 512, 4096, 8191, 8192, 8193, 16_384, 40_001, 100_000]

    static let combinations: [NegotiatedParameters] = {
        var all: [NegotiatedParameters] = []
        for immediate in [false, true] {
            for initialR2T in [false, true] {
                for (first, burst) in [(512, 512), (4096, 16_384), (65_536, 262_144)] {
                    for segment in [512, 8192, 262_144] {
                        for digest in segment == 8192 ? [DigestKind.none, .crc32c] : [.none] {
                            var parameters = SessionRig.defaults()
                            parameters.immediateData = immediate
                            parameters.initialR2T = initialR2T
                            parameters.firstBurstByteCount = first
                            parameters.maxBurstByteCount = burst
                            parameters.maxSendDataSegmentByteCount = segment
                            parameters.headerDigest = digest
                            parameters.dataDigest = digest
                            parameters.maxOutstandingR2T = segment == 512 ? 1 : 3
                            all.append(parameters)
                        }
                    }
                }
            }
        }
        return all
    }()

    @Test func everyCombinationOfParametersCarriesEverySizeExactly() {
        for parameters in Self.combinations {
            let rig = SessionRig(parameters)
            var target = ModelTarget(byteCount: 400_000)
            target.collapsesStatus = parameters.firstBurstByteCount != 4096
            run(rig, &target, sizes: Self.sizes)
        }
    }

    @Test(arguments: [1, 7, 49, 1000])
    func anyChunkingOfBothStreamsCarriesTheSame(chunk: Int) {
        for usesDirectWindow in [false, true] {
            var parameters = SessionRig.defaults()
            parameters.headerDigest = .crc32c
            parameters.dataDigest = .crc32c
            let rig = SessionRig(parameters)
            rig.chunk = chunk
            rig.usesDirectWindow = usesDirectWindow
            var target = ModelTarget(byteCount: 100_000)
            run(rig, &target, sizes: chunk == 1 ? [1, 4097, 20_000] : [1, 4097, 70_000])
        }
    }

    /// Each size written and read back, several commands at once.
    private func run(_ rig: SessionRig, _ target: inout ModelTarget, sizes: [Int]) {
        var expected = target.disk
        var memories: [UnsafeMutableRawBufferPointer] = []
        defer { for memory in memories { memory.deallocate() } }
        var offset = 5
        for (index, size) in sizes.enumerated() {
            let memory = UnsafeMutableRawBufferPointer.filled(size, seed: UInt64(index))
            memories.append(memory)
            expected.replaceSubrange(offset..<(offset + size), with: memory)
            #expect(rig.submit(.write, token: UInt64(index), memory: memory, offset: UInt64(offset)).isAccepted)
            offset += size
        }
        for _ in 0..<400 where rig.completions.count < sizes.count { target.serve(rig) }
        #expect(rig.completions.count == sizes.count)
        for completion in rig.completions {
            #expect(completion.outcome == .status(.good, sense: nil))
            #expect(completion.transferredByteCount == sizes[Int(completion.token)])
        }
        #expect(target.disk == expected)

        rig.completions = []
        offset = 5
        for (index, size) in sizes.enumerated() {
            let memory = UnsafeMutableRawBufferPointer.filled(size, seed: 77)
            memories.append(memory)
            #expect(rig.submit(.read, token: UInt64(index), memory: memory, offset: UInt64(offset)).isAccepted)
            offset += size
        }
        for _ in 0..<10 where rig.completions.count < sizes.count { target.serve(rig) }
        #expect(rig.completions.count == sizes.count)
        offset = 5
        for (index, size) in sizes.enumerated() {
            #expect(memories[sizes.count + index].elementsEqual(expected[offset..<(offset + size)]))
            #expect(rig.completions[index].transferredByteCount == size)
            offset += size
        }
        #expect(rig.failure == nil)
        #expect(rig.session.table.commandCount == 0)
        #expect(rig.session.connections[0].owedCount == 0)
    }
}
