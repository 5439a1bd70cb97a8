import SCSI
import Testing

@Suite struct ModeTests {
    static var control: ControlModePage {
        var page = ControlModePage()
        page.taskSetType = 1
        page.usesDescriptorSense = true
        page.disablesGlobalLogSave = true
        page.queueAlgorithmModifier = 1
        page.reportsTaskAborted = true
        page.isSoftwareWriteProtected = true
        page.unitAttentionInterlock = 2
        page.busyTimeoutPeriod = 0x1234
        return page
    }

    @Test func aTypicalSixByteAnswerIsRead() throws {
        let bytes = hex("1f 00 90 08 00100000 00 000200 08 12 04" + String(repeating: "00", count: 17))
        let mode = try #require(ModeParameters(parsing: bytes, format: .six))
        #expect(mode.isWriteProtected && mode.supportsForceUnitAccess)
        #expect(mode.blockDescriptor == .init(blockCount: 0x10_0000, blockSize: 512))
        #expect(mode.pages.count == 1)
        #expect(CachingModePage(mode.pages[0]) == CachingModePage(isWriteCacheEnabled: true))
        #expect(mode.encode(format: .six) == bytes)
    }

    @Test func pagesGoRound() {
        let caching = CachingModePage(isWriteCacheEnabled: false, isReadCacheDisabled: true, isReadAheadDisabled: true)
        #expect(CachingModePage(caching.page) == caching)
        #expect(ControlModePage(Self.control.page) == Self.control)
        let geometry = RigidDiskGeometryModePage(cylinderCount: 0x12_3456, headCount: 64, rotationRate: 7200)
        #expect(RigidDiskGeometryModePage(geometry.page) == geometry)
        #expect(CachingModePage(Self.control.page) == nil)
        #expect(ControlModePage(caching.page) == nil)
        #expect(RigidDiskGeometryModePage(caching.page) == nil)
    }

    @Test(arguments: [ModeHeaderFormat.six, .ten])
    func listsGoRound(format: ModeHeaderFormat) throws {
        let list = ModeParameters(
            mediumType: 3, isWriteProtected: true, supportsForceUnitAccess: true,
            blockDescriptor: .init(blockCount: 1 << (format == .ten ? 40 : 20), blockSize: 4096, isLong: format == .ten),
            pages: [
                CachingModePage(isWriteCacheEnabled: true).page, Self.control.page,
                ModePage(code: 0x0A, subpage: 1, isSavable: true, content: [1, 2, 3, 4]),
                ModePage(code: 0x31, content: []), ModePage(code: 0, content: [9, 9, 9]),
            ])
        #expect(ModeParameters(parsing: list.encode(format: format), format: format) == list)
        let selected = try ModeParameters(selecting: list.encode(format: format, zeroesLength: true), format: format)
        #expect(selected == list)
    }

    @Test func aSelectThatDoesNotAddUpIsRefused() {
        let list = ModeParameters(
            blockDescriptor: .init(blockCount: 1, blockSize: 512), pages: [Self.control.page]
        ).encode(format: .six, zeroesLength: true)
        for count in [1, 3, 6, 13, 20, list.count - 1] {
            #expect(throws: IllegalRequest.parameterListLength) {
                try ModeParameters(selecting: Array(list.prefix(count)), format: .six)
            }
        }
        #expect(throws: IllegalRequest.fieldInParameterList(byte: 3)) {
            try ModeParameters(selecting: hex("00000007 00000000000000"), format: .six)
        }
    }

    @Test func theShortHeaderTakesTheShortDescriptorOnly() throws {
        let list = ModeParameters(blockDescriptor: .init(blockCount: 1 << 40, blockSize: 512, isLong: true))
        #expect(list.encode(format: .six) == hex("0b000008 ffffffff 00000200"))
    }

    @Test func aCutAnswerKeepsItsWholePages() throws {
        let bytes = ModeParameters(pages: [Self.control.page, CachingModePage(isWriteCacheEnabled: true).page])
            .encode(format: .ten)
        let cut = try #require(ModeParameters(parsing: Array(bytes.dropLast()), format: .ten))
        #expect(cut.pages == [Self.control.page])
        #expect(ModeParameters.declaredByteCount(bytes, format: .ten) == bytes.count)
    }
}
