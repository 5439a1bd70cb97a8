import SCSI
import Testing

@Suite struct ProvisioningTests {
    @Test func unmapListsGoRound() throws {
        let list = UnmapList(ranges: [BlockRange(lba: 1 << 40, blockCount: 8), BlockRange(lba: 7, blockCount: 0)])
        let bytes = list.encode()
        #expect(
            bytes == hex("0026 0020 00000000 0000010000000000 00000008 00000000 0000000000000007 00000000 00000000"))
        #expect(bytes.count == UnmapList.byteCount(rangeCount: 2))
        #expect(try UnmapList(parsing: bytes) == list)
    }

    @Test func theLongestUnmapListFitsItsLengths() throws {
        let ranges = (0..<UnmapList.maxRangeCount).map { BlockRange(lba: UInt64($0), blockCount: 1) }
        let bytes = UnmapList(ranges: ranges).encode()
        #expect(bytes.count <= Int(UInt16.max))
        #expect(try UnmapList(parsing: bytes).ranges == ranges)
    }

    @Test func emptyAndCutUnmapListsAreBounded() throws {
        #expect(try UnmapList(parsing: []).ranges.isEmpty)
        #expect(throws: IllegalRequest.parameterListLength) { try UnmapList(parsing: hex("00260020000000")) }
        let list = UnmapList(ranges: [BlockRange(lba: 1, blockCount: 8), BlockRange(lba: 7, blockCount: 9)]).encode()
        #expect(try UnmapList(parsing: Array(list.dropLast())).ranges == [BlockRange(lba: 1, blockCount: 8)])
        #expect(throws: IllegalRequest.fieldInParameterList(byte: 2)) { try UnmapList(parsing: list, maxRangeCount: 1) }
    }

    @Test func lbaStatusGoesRound() throws {
        let report = LBAStatusReport(extents: [
            .init(range: BlockRange(lba: 0, blockCount: 8), status: .mapped),
            .init(range: BlockRange(lba: 8, blockCount: .max), status: .deallocated),
        ])
        let bytes = report.encode()
        #expect(Array(bytes.prefix(8)) == hex("00000024 00000000"))
        #expect(LBAStatusReport(parsing: bytes) == report)
        #expect(LBAStatusReport(parsing: Array(bytes.dropLast()))?.extents.count == 1)
    }

    @Test func theListOfOperationsGoesRound() throws {
        let operations = SupportedOperation.decodable
        for withTimeouts in [false, true] {
            let bytes = try SupportedOperation.answer(.all, operations: operations, withTimeouts: withTimeouts)
            let list = try #require(SupportedOperationList(parsing: bytes))
            #expect(list.entries.map(\.operationCode) == operations.map(\.operationCode))
            #expect(list.entries.map(\.serviceAction) == operations.map(\.serviceAction))
            #expect(list.entries.map { Int($0.commandByteCount) } == operations.map(\.usage.count))
        }
    }

    @Test func oneOperationIsAnsweredByItsKindOfQuestion() throws {
        let operations = SupportedOperation.decodable
        func ask(_ query: OperationQuery) throws -> OperationSupport? {
            OperationSupport(parsing: try SupportedOperation.answer(query, operations: operations))
        }
        #expect(try ask(.code(0x00)) == .supported(usage: [0, 0, 0, 0, 0, 0]))
        #expect(try ask(.code(0xC0)) == .notSupported)
        #expect(try ask(.serviceAction(0x9E, 0x11)) == .notSupported)
        #expect(try ask(.either(0x00, 5)) == .supported(usage: [0, 0, 0, 0, 0, 0]))
        #expect(try ask(.either(0x9E, 0x7F)) == .notSupported)
        guard case .supported(let usage) = try ask(.serviceAction(0x9E, 0x10)) else {
            Issue.record("READ CAPACITY (16) is not reported")
            return
        }
        #expect(usage.prefix(2) == [0x9E, 0x10])
        #expect(throws: IllegalRequest.fieldInCommand(byte: 2, bit: 2)) { try ask(.code(0x9E)) }
        #expect(throws: IllegalRequest.fieldInCommand(byte: 2, bit: 2)) { try ask(.serviceAction(0x00, 0)) }
    }

    @Test func anEmptyDefectListRepeatsWhatWasAsked() {
        let request = DefectDataRequest(isTwelve: false, primaryList: true, grownList: false, format: 5, allocationByteCount: 8)
        #expect(request.encodeEmptyList() == hex("00150000"))
    }
}
