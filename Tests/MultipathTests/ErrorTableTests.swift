import SCSI
import Testing
import Timebase

@testable import Multipath

@Suite struct ErrorTableTests {
    struct Case: CustomTestStringConvertible, Sendable {
        var outcome: PathOutcome
        var action: ErrorAction
        var usesRetry = false
        var effects: ErrorEffects = []
        var notice: DeviceNotice?
        var testDescription: String { "\(outcome)" }

        init(
            _ outcome: PathOutcome, _ action: ErrorAction, usesRetry: Bool = false,
            _ effects: ErrorEffects = [], _ notice: DeviceNotice? = nil
        ) {
            self.outcome = outcome
            self.action = action
            self.usesRetry = usesRetry
            self.effects = effects
            self.notice = notice
        }
    }

    static let cases: [Case] = [
        Case(.good, .complete),
        Case(.status(.conditionMet, nil), .complete),
        Case(.status(.busy, nil), .retrySamePath, .shrinkQueue),
        Case(.status(.taskSetFull, nil), .retrySamePath, .shrinkQueue),
        Case(.status(.reservationConflict, nil), .surface),
        Case(.status(.taskAborted, nil), .retrySamePath, usesRetry: true),
        Case(.status(.acaActive, nil), .retrySamePath, usesRetry: true),
        Case(.status(.checkCondition, nil), .retryOtherPath, usesRetry: true),
        Case(.status(SCSIStatus(rawValue: 0x7E), nil), .surface),
        Case(
            .sense(.mediumError, 0x11, 0, deferred: true), .retrySamePath, usesRetry: true, [],
            .deferredError),
        // ALUA
        Case(.sense(.notReady, 0x04, 0x0A), .retryOtherPath, [.transitioning, .refreshAccessStates]),
        Case(.sense(.notReady, 0x04, 0x0B), .retryOtherPath, [.standby, .refreshAccessStates]),
        Case(.sense(.notReady, 0x04, 0x0C), .retryOtherPath, [.unavailable, .refreshAccessStates]),
        Case(.sense(.notReady, 0x04, 0x12), .retryOtherPath, [.unavailable, .refreshAccessStates]),
        Case(.sense(.illegalRequest, 0x94, 0x01), .retryOtherPath, [.standby, .refreshAccessStates]),
        // Not ready
        Case(.sense(.notReady, 0x04, 0x01), .retrySamePath),
        Case(.sense(.notReady, 0x04, 0x02), .retryOtherPath, usesRetry: true),
        Case(.sense(.notReady, 0x04, 0x03), .retryOtherPath, usesRetry: true),
        Case(.sense(.notReady, 0x04, 0x04), .retrySamePath, usesRetry: true),
        Case(.sense(.notReady, 0x04, 0x14), .retrySamePath, usesRetry: true),
        Case(.sense(.notReady, 0x3A, 0x00), .surface),
        Case(.sense(.notReady, 0x08, 0x00), .retryOtherPath, usesRetry: true),
        // Unit attentions
        Case(.sense(.unitAttention, 0x29, 0x00), .retrySamePath, .refreshAccessStates, .reset),
        Case(.sense(.unitAttention, 0x29, 0x07), .retrySamePath, .refreshAccessStates, .reset),
        Case(
            .sense(.unitAttention, 0x2A, 0x06), .retrySamePath, .refreshAccessStates, .accessStateChanged),
        Case(
            .sense(.unitAttention, 0x2A, 0x07), .retrySamePath, .refreshAccessStates, .accessStateChanged),
        Case(.sense(.unitAttention, 0x2A, 0x09), .retrySamePath, .reprobe, .capacityChanged),
        Case(.sense(.unitAttention, 0x3F, 0x0E), .retrySamePath, .reprobe, .inventoryChanged),
        Case(
            .sense(.unitAttention, 0x3F, 0x03), .retrySamePath, [.reprobe, .refreshAccessStates],
            .inquiryChanged),
        Case(.sense(.unitAttention, 0x3F, 0x05), .retrySamePath, .reprobe, .identifierChanged),
        Case(.sense(.unitAttention, 0x28, 0x00), .retrySamePath, .reprobe, .mediumChanged),
        Case(.sense(.unitAttention, 0x3F, 0x01), .retrySamePath, .reprobe, .microcodeChanged),
        Case(
            .sense(.unitAttention, 0x2A, 0x01), .retrySamePath, .refreshAccessStates, .parametersChanged),
        Case(.sense(.unitAttention, 0x2A, 0x03), .retrySamePath, [], .reservationsChanged),
        Case(.sense(.unitAttention, 0x2A, 0x04), .retrySamePath, [], .reservationsChanged),
        Case(.sense(.unitAttention, 0x2A, 0x05), .retrySamePath, [], .reservationsChanged),
        Case(.sense(.unitAttention, 0x2F, 0x00), .retrySamePath, [], .commandsCleared),
        Case(.sense(.unitAttention, 0x38, 0x07), .retrySamePath, [], .thinProvisioningThreshold),
        Case(.sense(.unitAttention, 0x5A, 0x00), .retrySamePath, usesRetry: true),
        // Medium, hardware
        Case(.sense(.mediumError, 0x11, 0x00), .surface),
        Case(.sense(.mediumError, 0x13, 0x00), .surface),
        Case(.sense(.mediumError, 0x14, 0x01), .surface),
        Case(.sense(.mediumError, 0x0C, 0x02), .surface),
        Case(.sense(.hardwareError, 0x44, 0x00), .surface),
        Case(.sense(.hardwareError, 0x67, 0x0A), .retryOtherPath, usesRetry: true, .refreshAccessStates),
        Case(.sense(.hardwareError, 0x3E, 0x02), .retrySamePath, usesRetry: true),
        Case(.sense(.hardwareError, 0x4B, 0x06), .retryOtherPath, usesRetry: true),
        // Illegal request
        Case(.sense(.illegalRequest, 0x20, 0), .surface),
        Case(.sense(.illegalRequest, 0x21, 0), .surface),
        Case(.sense(.illegalRequest, 0x22, 0), .surface),
        Case(.sense(.illegalRequest, 0x24, 0), .surface),
        Case(.sense(.illegalRequest, 0x26, 0), .surface),
        Case(.sense(.illegalRequest, 0x27, 0), .surface),
        Case(.sense(.illegalRequest, 0x25, 0), .failPath(.logicalUnitMissing)),
        // Aborted command
        Case(.sense(.abortedCommand, 0x00, 0), .retrySamePath, usesRetry: true),
        Case(.sense(.abortedCommand, 0x10, 1), .surface),
        Case(.sense(.abortedCommand, 0x47, 0), .retryOtherPath, usesRetry: true),
        Case(.sense(.abortedCommand, 0x4B, 0), .retryOtherPath, usesRetry: true),
        // The rest
        Case(.sense(.noSense, 0, 0), .retrySamePath, usesRetry: true),
        Case(.sense(.recoveredError, 0x17, 1), .complete),
        Case(.sense(.recoveredError, 0x5D, 0), .complete, [], .failurePredicted),
        Case(.sense(.dataProtect, 0x27, 0x07), .surface, [], .outOfSpace),
        Case(.sense(.dataProtect, 0x27, 0x00), .surface),
        Case(.sense(.miscompare, 0x1D, 0), .surface),
        Case(.sense(.volumeOverflow, 0, 0), .surface),
        Case(.sense(.blankCheck, 0, 0), .surface),
        Case(.sense(.copyAborted, 0, 0), .surface),
        Case(.sense(.vendorSpecific, 0x80, 0), .surface),
        Case(.sense(.completed, 0, 0), .complete),
        // Transport
        Case(.targetFailure(1), .retryOtherPath, usesRetry: true),
        Case(.short(transferredByteCount: 512), .retrySamePath, usesRetry: true),
        Case(.returned(wasSent: true, .connectionReset), .failPath(.other)),
        Case(.returned(wasSent: true, .digestError), .failPath(.digestError)),
        Case(.returned(wasSent: true, .inputOutputError), .retryOtherPath, usesRetry: true, .verify),
    ]

    @Test(arguments: cases)
    func theRowSaysWhatToDo(_ expected: Case) {
        let found = ErrorTable.standard.disposition(of: expected.outcome)
        #expect(found.action == expected.action)
        #expect(found.usesRetry == expected.usesRetry)
        #expect(found.effects == expected.effects)
        #expect(found.notice == expected.notice)
    }

    @Test func everyRowIsReachedHasAReasonAndIsCovered() {
        let rows = ErrorTable.standard.rows
        #expect(rows.allSatisfy { !$0.why.isEmpty && !$0.name.isEmpty })
        #expect(Set(rows.map(\.pattern)).count == rows.count, "a row stands twice")
        for row in rows {
            guard let outcome = Self.example(row.pattern) else { continue }
            #expect(ErrorTable.standard.row(for: outcome) == row, "\(row.name) is hidden by an earlier row")
        }
    }

    private static func example(_ pattern: ErrorPattern) -> PathOutcome? {
        switch pattern {
        case .status(let status): .status(status, nil)
        case .noSenseData: .status(.checkCondition, nil)
        case .deferred: .sense(.mediumError, 0x11, 0, deferred: true)
        case .sense(let key, let code, let qualifier): .sense(key, code ?? 0x7F, qualifier ?? 0x7F)
        case .targetFailure(let code): .targetFailure(code ?? 9)
        case .short: .short(transferredByteCount: 0)
        case .returned(let reason): .returned(wasSent: true, reason ?? .connectionReset)
        case .any: nil
        }
    }

    @Test func aVendorsRowsComeFirst() {
        let own = ErrorRow(
            .sense(.hardwareError, code: 0x44, qualifier: nil), ErrorDisposition(.failPath(.inputOutputError)),
            name: "controller fault", why: "This array's controllers fail alone.")
        let table = ErrorTable.standard.preceded(by: [own])
        #expect(table.disposition(of: .sense(.hardwareError, 0x44, 0)).action == .failPath(.inputOutputError))
        #expect(table.disposition(of: .sense(.hardwareError, 0x45, 0)).action == .surface)
    }
}

@Suite struct RetryTests {
    @Test func countedRetriesEndAfterRetryCountWithTheLastError() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let read = harness.read()
        for _ in 0..<3 {
            harness.complete(read, .sense(.abortedCommand, 0, 0))
            #expect(harness.result(of: read) == nil)
        }
        harness.complete(read, .sense(.abortedCommand, 0, 1))
        #expect(
            harness.result(of: read)
                == .failed(
                    .status(
                        .checkCondition,
                        SenseData(key: .abortedCommand, additional: AdditionalSense(0, 1)))))
    }

    @Test func aRetryOnTheSamePathStaysThereAndOneElsewhereGoesElsewhere() {
        let harness = Harness(policy: .roundRobin, paths: 3)
        let read = harness.read()
        #expect(harness.path(of: read) == PathIndex(0))
        harness.complete(read, .sense(.abortedCommand, 0, 0))
        #expect(harness.path(of: read) == PathIndex(0))
        harness.complete(read, .sense(.abortedCommand, 0x47, 0))
        #expect(harness.path(of: read) != PathIndex(0))
        #expect(harness.lun.lastDecisions(1).first?.reason == .retryOtherPath)
    }

    @Test func aRetryThatWaitsComesAfterTheRetryInterval() {
        let harness = Harness(policy: .roundRobin, paths: 1)
        let read = harness.read()
        harness.complete(read, .sense(.notReady, 0x04, 0x04))
        harness.advance(.milliseconds(999))
        #expect(harness.path(of: read) == nil)
        harness.advance(.milliseconds(1))
        #expect(harness.path(of: read) != nil)
    }

    @Test func aRetryThatCostsNothingIsNeverAskedForAsFastAsTheTargetAnswers() {
        let harness = Harness(policy: .roundRobin, paths: 1) { $0.timers.retryInterval = .zero }
        let read = harness.read()
        harness.complete(read, .sense(.notReady, 0x04, 0x01))
        #expect(harness.path(of: read) == nil)
        harness.advance(.milliseconds(1))
        #expect(harness.path(of: read) == PathIndex(0))
        // One that counts ends by its count.
        harness.complete(read, .sense(.notReady, 0x04, 0x04))
        #expect(harness.path(of: read) == PathIndex(0))
    }

    @Test func aTargetThatIsBecomingReadyForEverIsBackedOffFromLikeAnyOther() {
        let harness = Harness(policy: .roundRobin, paths: 1) { $0.timers.commandTimeout = .seconds(1_000_000) }
        let read = harness.read()
        // As after so many answers.
        harness.lun.slots[Int(read!.slot)].freeRetries = .max - 1
        for _ in 0..<2 {
            harness.complete(read, .sense(.notReady, 0x04, 0x01))
            harness.advance(.seconds(1))
        }
        harness.complete(read, .status(.taskAborted, nil))
        harness.complete(read, .status(.busy, nil))
        #expect(harness.path(of: read) == nil)
        harness.advance(.seconds(1))
        #expect(harness.path(of: read) == PathIndex(0))
    }

    @Test func freeRetriesWithoutAPauseDoNotGoOnForEver() {
        let harness = Harness(policy: .roundRobin, paths: 1)
        let read = harness.read()
        var tries = 0
        while harness.result(of: read) == nil, tries < 1000 {
            harness.complete(read, .sense(.unitAttention, 0x29, 0))
            tries += 1
        }
        #expect(tries == PseudoLUN.freeRetryLimit + 3 + 1)
    }

    /// A connection that goes is no word of the device's, which may have used up what is free.
    @Test func aLostConnectionIsNotCountedAgainstARequest() {
        let harness = Harness(policy: .roundRobin, paths: 1)
        let read = harness.read()
        for _ in 0..<PseudoLUN.freeRetryLimit + 3 { harness.complete(read, .sense(.unitAttention, 0x29, 0)) }
        for _ in 0..<100 {
            #expect(harness.path(of: read) == PathIndex(0))
            harness.complete(read, .returned(wasSent: true, .taskLost))
        }
        #expect(harness.result(of: read) == nil)
        harness.complete(read)
        #expect(harness.result(of: read) == .done)
    }

    @Test func busyIsNeverAPathFailureAndBacksOff() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let read = harness.read()
        var pauses: [Int64] = []
        for _ in 0..<10 {
            harness.complete(read, .status(.busy, nil))
            let before = harness.now
            harness.advance(harness.lun.nextDeadline - harness.now)
            pauses.append((harness.now - before).wholeNanoseconds / 1_000_000)
            #expect(harness.path(of: read) == PathIndex(0))
        }
        #expect(pauses == [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000])
        #expect(harness.lun.pathState(PathIndex(0)) == .activeOptimized)
        harness.complete(read)
        #expect(harness.result(of: read) == .done)
    }

    @Test func taskSetFullHalvesTheQueueWhichThenGrowsByOne() {
        let harness = Harness(policy: .failOverOnly, paths: 2, capacity: 64)
        let reads = (0..<16).map { harness.read(UInt64($0) * 8) }
        harness.complete(reads[15], .status(.taskSetFull, nil))
        #expect(harness.lun.snapshot().paths[0].depthLimit == 8)
        #expect(harness.lun.snapshot().paths[1].depthLimit == nil)
        // More of the same burst does not shrink it again.
        harness.complete(reads[14], .status(.taskSetFull, nil))
        #expect(harness.lun.snapshot().paths[0].depthLimit == 8)
        harness.advance(.seconds(1))
        var widest = 0
        var lba: UInt64 = 1000
        for _ in 0..<400 {
            while harness.lun.requestCount < 30 {
                harness.read(lba)
                lba += 8
            }
            widest = max(widest, harness.inFlight.count)
            harness.complete(harness.inFlight[0])
        }
        #expect(harness.inFlight.allSatisfy { $0.path == PathIndex(0) }, "a busy path is no reason to fail over")
        let limit = harness.lun.snapshot().paths[0].depthLimit ?? 0
        #expect(limit > 16 && limit < 40)
    }

    @Test func otherPathsTakeWhatABusyOneCannot() {
        let harness = Harness(policy: .roundRobin, paths: 2, capacity: 64)
        let reads = (0..<4).map { harness.read(UInt64($0) * 8) }
        harness.complete(reads[0], .status(.busy, nil))
        for lba in 10..<20 { harness.read(UInt64(lba) * 8) }
        #expect(harness.inFlight.count { $0.path == PathIndex(0) } == 1)
        #expect(harness.inFlight.count { $0.path == PathIndex(1) } == 12)
    }

    @Test func anUnsupportedUnitFailsThePathAndTheRequestGoesElsewhere() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let read = harness.read()
        harness.complete(read, .sense(.illegalRequest, 0x25, 0))
        #expect(harness.lun.pathState(PathIndex(0))?.name == "failed")
        #expect(harness.path(of: read) == PathIndex(1))
        #expect(harness.disconnects.isEmpty, "the session may serve other units")
    }

    @Test func aMediumErrorIsToldAtOnceAndThePathIsWell() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let read = harness.read()
        harness.complete(read, .sense(.mediumError, 0x11, 0))
        guard case .failed(.status(.checkCondition, let sense?))? = harness.result(of: read) else {
            Issue.record("not surfaced")
            return
        }
        #expect(sense.key == .mediumError)
        #expect(harness.lun.state == .optimal)
    }

    @Test func failLUNEndsEverything() {
        final class Strict: DefaultDSM {
            override var errorTable: ErrorTable {
                .standard.preceded(by: [
                    ErrorRow(
                        .sense(.hardwareError, code: nil, qualifier: nil), ErrorDisposition(.failLUN),
                        name: "dead", why: "For the test.")
                ])
            }
        }
        let harness = Harness(dsm: Strict(policy: PolicySettings(.roundRobin)))
        harness.up(harness.add("a"))
        let first = harness.write()
        let second = harness.write()
        harness.complete(first, .sense(.hardwareError, 0x44, 0))
        #expect(harness.result(of: second) == .failed(.lunFailed))
        #expect(harness.result(of: harness.read()) == .failed(.lunFailed))
    }
}

@Suite struct DeviceSpecificModuleTests {
    final class ArrayDSM: DefaultDSM {
        override class func claims(_ device: DeviceDescription, transport: TransportKind) -> Bool {
            device.vendor == "ACME" && transport == .iSCSI
        }
        override var name: String { "acme" }
    }

    @Test func theFirstModuleThatClaimsTheDeviceGetsItAndTheDefaultTakesTheRest() {
        var registry = DSMRegistry()
        registry.register(ArrayDSM.self)
        var device = Harness.device()
        let policy = PolicySettings(.leastBlocks)
        #expect(registry.module(for: device, transport: .iSCSI, policy: policy)?.name == "default")
        device.vendor = "ACME"
        let own = registry.module(for: device, transport: .iSCSI, policy: policy)
        #expect(own?.name == "acme")
        #expect(own?.policy == policy)
        #expect(registry.module(for: device, transport: .kernelDevice, policy: policy)?.name == "default")
    }

    final class TwinDSM: ALUADSM {
        override class func claims(_ device: DeviceDescription, transport: TransportKind) -> Bool { device.vendor == "TWIN" }
        override var name: String { "twin" }
    }

    /// What a vendor's module for an array with ALUA should be made from.
    @Test func aModuleMadeFromTheOneForALUAKeepsToPreferredGroups() throws {
        var registry = DSMRegistry()
        registry.register(ArrayDSM.self)
        registry.register(TwinDSM.self)
        var device = Harness.device()
        device.targetPortGroupSupport = [.explicit]
        func module(_ vendor: String) throws -> any DeviceSpecificModule {
            device.vendor = vendor
            return try #require(registry.module(for: device, transport: .iSCSI, policy: PolicySettings(.roundRobin)))
        }
        #expect(try module("OTHER").name == "alua" && module("TWIN").name == "twin" && module("ACME").name == "acme")
        #expect(try module("OTHER").grade(of: .optimized, isPreferred: true) == .preferred)
        #expect(try module("TWIN").grade(of: .optimized, isPreferred: true) == .preferred)
        #expect(try module("ACME").grade(of: .optimized, isPreferred: true) == .optimized)
    }

    @Test func theLUNAsksTheRegistryWhenItsFirstPathShowsTheDevice() {
        var registry = DSMRegistry()
        registry.register(ArrayDSM.self)
        let lun = PseudoLUN(name: "t", settings: LUNSettings(), registry: registry, requestCapacity: 4)
        let path = lun.addPath(PathSettings(name: "a"), load: PathLoad(), at: .zero)
        var device = Harness.device()
        device.vendor = "ACME"
        lun.pathConnected(path, PathReport(device: device), at: .zero)
        #expect(lun.snapshot().module == "acme")
    }

    @Test func aReservedUnitIsAWellPath() {
        let module = DefaultDSM(policy: PolicySettings(.roundRobin))
        #expect(module.verificationFailure(.status(.reservationConflict, nil)) == nil)
        #expect(module.verificationFailure(.sense(.notReady, 0x04, 0x0B)) == nil)
        #expect(module.verificationFailure(.sense(.illegalRequest, 0x25, 0))?.reason == .logicalUnitMissing)
        #expect(module.verificationFailure(.returned(wasSent: true, .silent))?.reason == .silent)
    }
}
