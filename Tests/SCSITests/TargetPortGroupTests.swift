import SCSI
import Testing

@Suite struct TargetPortGroupTests {
    static let groups = [
        TargetPortGroup(
            identifier: 1, state: .optimized, isPreferred: true,
            supportedStates: [.optimized, .nonOptimized, .standby, .unavailable, .transitioning],
            status: .alteredExplicitly, vendorSpecific: 9, relativePorts: [1, 2]),
        TargetPortGroup(identifier: 0xABCD, state: .standby, relativePorts: []),
        TargetPortGroup(identifier: 3, state: .transitioning, status: .alteredImplicitly, relativePorts: [0x0102]),
    ]

    @Test func theShortHeaderIsRead() throws {
        let bytes = hex("00000010 80 8f 0001 00 01 09 02 0000 0001 0000 0002")
        let report = try #require(TargetPortGroupReport(parsing: bytes))
        #expect(report.groups == [Self.groups[0]])
        #expect(report.implicitTransitionSeconds == nil)
        #expect(report.encode() == bytes)
    }

    @Test func theExtendedHeaderIsRead() throws {
        let report = try #require(TargetPortGroupReport(parsing: hex("0000000c 10 3c 0000 02 01 abcd 00 00 00 00")))
        #expect(report.groups == [Self.groups[1]])
        #expect(report.implicitTransitionSeconds == 60)
    }

    @Test(arguments: [nil, 0, 255] as [UInt8?])
    func reportsGoRound(seconds: UInt8?) throws {
        let report = TargetPortGroupReport(groups: Self.groups, implicitTransitionSeconds: seconds)
        let bytes = report.encode()
        #expect(report.declaredByteCount == bytes.count)
        let read = try #require(TargetPortGroupReport(parsing: bytes))
        #expect(read == report)
        #expect(read.group(ofRelativePort: 2)?.identifier == 1)
        #expect(read.group(ofRelativePort: 77) == nil)
    }

    @Test func aReservedStateIsKeptAndCountsAsUnavailable() throws {
        let bytes = hex("00000008 07 00 0001 00 05 00 00")
        let report = try #require(TargetPortGroupReport(parsing: bytes))
        #expect(report.groups.first?.stateCode == 7)
        #expect(report.groups.first?.state == .unavailable)
        #expect(report.encode() == bytes)
    }

    @Test func aCutReportSaysHowMuchThereIs() throws {
        let bytes = TargetPortGroupReport(groups: Self.groups).encode()
        let cut = try #require(TargetPortGroupReport(parsing: Array(bytes.prefix(25))))
        #expect(cut.groups == [Self.groups[0]])
        #expect(cut.declaredByteCount == bytes.count)
    }

    @Test func everyStateHasItsOwnBitAndName() {
        for state in AccessState.allCases {
            let without: [SupportedAccessStates] = [
                .optimized, .nonOptimized, .standby, .unavailable, .lbaDependent, .offline, .transitioning,
            ].filter { $0.contains(state) }
            #expect(without.count == 1)
        }
        #expect(AccessState.nonOptimized.description == "active/non-optimized")
        #expect(Set(AccessState.allCases.map(\.description)).count == 7)
    }

    @Test func changesGoRound() throws {
        let changes = [
            TargetPortGroupChange(identifier: 1, state: .optimized), TargetPortGroupChange(identifier: 2, state: .offline),
        ]
        let bytes = TargetPortGroupChange.encode(changes)
        #expect(bytes == hex("00000000 00000001 0e000002"))
        #expect(try TargetPortGroupChange.parse(bytes) == changes)
    }

    @Test func aStateThatCanNotBeAskedForIsPointedAt() {
        #expect(throws: IllegalRequest.fieldInParameterList(byte: 8, bit: 3)) {
            try TargetPortGroupChange.parse(hex("00000000 00000001 0f000002"))
        }
        #expect(throws: IllegalRequest.fieldInParameterList(byte: 4, bit: 3)) {
            try TargetPortGroupChange.parse(hex("00000000 05000001"))
        }
        #expect(throws: IllegalRequest.parameterListLength) { try TargetPortGroupChange.parse(hex("0000")) }
        #expect(throws: IllegalRequest.parameterListLength) { try TargetPortGroupChange.parse(hex("00000000 0000")) }
    }
}
