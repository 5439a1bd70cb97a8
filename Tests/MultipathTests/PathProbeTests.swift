import SCSI
import Testing
import Timebase

@testable import Multipath

/// A device that answers a probe's commands from a table.
private struct Device {
    var inquiry = InquiryData(vendor: "LIO-ORG", product: "disk0", revision: "4.0")
    var pages: [VPDPage: [UInt8]] = [:]
    var ready: [PathOutcome] = []
    var capacity16: (PathOutcome, [UInt8]) = (
        .good, ReadCapacity16Data(blockCount: 1 << 21, blockSize: 512).encode()
    )
    var capacity10: (PathOutcome, [UInt8]) = (.good, ReadCapacity10Data(blockCount: 1 << 21, blockSize: 512).encode())
    var groups: (PathOutcome, [UInt8]) = (.sense(.illegalRequest, 0x24, 0), [])
    var commands: [CommandDescriptorBlock] = []
    /// So many commands are answered BUSY first.
    var busy = 0
    var waited = Duration.zero

    init(identity: LogicalUnitIdentity = Harness.identity, port: UInt16? = nil, group: UInt16? = nil) {
        var descriptors = [identity.designator].compactMap { $0 }
        if let port { descriptors.append(.relativeTargetPort(port)) }
        if let group { descriptors.append(.targetPortGroup(group)) }
        pages[.deviceIdentification] = DeviceIdentification(descriptors: descriptors).encode()
        pages[.unitSerialNumber] = UnitSerialNumber(serial: "S1").encode()
        var limits = BlockLimits()
        limits.maxTransferBlockCount = 1024
        pages[.blockLimits] = limits.encode()
        pages[.supportedPages] = SupportedVPDPages(pages: Array(pages.keys) + [.supportedPages]).encode()
    }

    mutating func answer(_ command: CommandDescriptorBlock, _ byteCount: Int) -> (PathOutcome, [UInt8]) {
        commands.append(command)
        if busy > 0 {
            busy -= 1
            return (.status(busy % 2 == 0 ? .busy : .taskSetFull, nil), [])
        }
        switch command.operationCode {
        case 0x12:
            if command.bytes[1] & 1 == 0 { return (.good, Array(inquiry.encode().prefix(byteCount))) }
            guard let page = pages[VPDPage(rawValue: command.bytes[2])] else {
                return (.sense(.illegalRequest, 0x24, 0), [])
            }
            return (.good, Array(page.prefix(byteCount)))
        case 0x00: return (ready.isEmpty ? .good : ready.removeFirst(), [])
        case 0x9E: return capacity16
        case 0x25: return capacity10
        case 0xA3: return (groups.0, Array(groups.1.prefix(byteCount)))
        default:
            Issue.record("a command that nobody needs: \(command.operationCode)")
            return (.sense(.illegalRequest, 0x20, 0), [])
        }
    }

    mutating func probe(
        _ reason: ProbeReason = .connected, known: DeviceDescription? = nil
    ) -> ProbeResult {
        var probe = PathProbe(
            reason: reason, targetName: "iqn.2026-11.org.example:t", known: known,
            dsm: DefaultDSM(policy: PolicySettings(.roundRobin)))
        var step = probe.start()
        for _ in 0..<100 {
            switch step {
            case .finished(let result): return result
            case .wait(let time):
                waited += time
                step = probe.resumed()
            case .send(let command, let byteCount):
                let (outcome, data) = answer(command, byteCount)
                step = probe.answered(outcome, data: data)
            }
        }
        Issue.record("the probe does not end")
        return .failed(PathFailure(.other))
    }
}

@Suite struct PathProbeTests {
    @Test(arguments: [ProbeReason.connected, .recheck, .verify, .accessStates])
    func aBusyDeviceIsAskedAgain(_ reason: ProbeReason) {
        var device = Device()
        device.busy = PathProbe.busyLimit
        device.groups = (.good, TargetPortGroupReport(groups: [TargetPortGroup(identifier: 1, state: .optimized, relativePorts: [1])]).encode())
        let result = device.probe(reason)
        #expect(device.waited == .milliseconds(50 + 100 + 200 + 400 + 6 * 800))
        switch (reason, result) {
        case (.connected, .usable), (.recheck, .usable), (.verify, .verified), (.accessStates, .accessStates): break
        default: Issue.record("\(reason): \(result)")
        }
    }

    /// BUSY is never the failure of a path that works (DESIGN, "Failure"); one that is not yet known to must answer.
    @Test func aDeviceThatStaysBusyFailsOnlyAPathThatIsNotYetInUse() {
        for reason in [ProbeReason.verify, .accessStates] {
            var device = Device()
            device.busy = .max
            #expect(device.probe(reason) == .accessStates([], unitAttentions: []))
        }
        var device = Device()
        device.busy = .max
        guard case .failed = device.probe(.connected) else {
            Issue.record("usable without an answer")
            return
        }
        #expect(device.commands.count == 1 + PathProbe.busyLimit)
    }

    private func report(_ result: ProbeResult) -> PathReport? {
        if case .usable(let report) = result { return report }
        Issue.record("not usable: \(result)")
        return nil
    }

    private func failure(_ result: ProbeResult) -> PathFailure? {
        if case .failed(let failure) = result { return failure }
        Issue.record("no failure: \(result)")
        return nil
    }

    @Test func aPlainDiskIsDescribedWithoutCommandsItNeedNotHave() {
        var device = Device()
        let found = report(device.probe())
        #expect(found?.device.identity == Harness.identity)
        #expect(found?.device.vendor == "LIO-ORG")
        #expect(found?.device.serial == "S1")
        #expect(found?.device.blockSize == 512)
        #expect(found?.device.blockCount == 1 << 21)
        #expect(found?.device.blockLimits?.maxTransferBlockCount == 1024)
        #expect(found?.accessState == .optimized)
        // INQUIRY, pages 00, 83, 80, B0, TEST UNIT READY, READ CAPACITY (16): no RTPG where TPGS is 0.
        #expect(device.commands.map(\.operationCode) == [0x12, 0x12, 0x12, 0x12, 0x12, 0x00, 0x9E])
    }

    @Test func accessStatesAreAskedWhereTheDeviceHasThem() {
        var device = Device(port: 2, group: 7)
        device.inquiry.targetPortGroupSupport = .implicit
        let group = TargetPortGroup(identifier: 7, state: .nonOptimized, relativePorts: [2])
        device.groups = (.good, TargetPortGroupReport(groups: [group]).encode())
        let found = report(device.probe())
        #expect(found?.targetPortGroups.map(\.state) == [.nonOptimized])
        #expect(found?.device.targetPortGroup == 7)
        #expect(found?.device.relativeTargetPort == 2)
    }

    @Test func unitAttentionsAreSwallowedAndReported() {
        var device = Device()
        device.ready = [.sense(.unitAttention, 0x29, 0), .sense(.unitAttention, 0x2A, 0x09)]
        #expect(report(device.probe())?.unitAttentions.map(\.additional.code) == [0x29, 0x2A])
    }

    @Test func unitAttentionsWithoutEndFailThePath() {
        var device = Device()
        device.ready = Array(repeating: .sense(.unitAttention, 0x29, 0), count: 50)
        #expect(failure(device.probe())?.reason == .verificationFailed)
    }

    @Test func readCapacity10IsTheFallback() {
        var device = Device()
        device.capacity16 = (.sense(.illegalRequest, 0x20, 0), [])
        #expect(report(device.probe())?.device.blockCount == 1 << 21)
        device.capacity10 = (.good, ReadCapacity10Data.tooLarge(blockSize: 512).encode())
        #expect(failure(device.probe())?.reason == .verificationFailed)
    }

    @Test func aNumberWithoutAUnitBehindItIsMissing() {
        var device = Device()
        device.inquiry.peripheralQualifier = 3
        #expect(failure(device.probe())?.reason == .logicalUnitMissing)
    }

    @Test func aUnitThatIsNotReadyFailsTheProbeAndSaysWhy() {
        var device = Device()
        device.ready = [.sense(.notReady, 0x04, 0x03)]
        let failure = failure(device.probe())
        #expect(failure?.reason == .notReady)
        #expect(failure?.detail.contains("04/03") == true)
    }

    @Test func aStandbyPortThatWillNotTellItsCapacityTakesTheKnownOne() {
        var device = Device()
        device.ready = [.sense(.notReady, 0x04, 0x0B)]
        device.capacity16 = (.sense(.notReady, 0x04, 0x0B), [])
        let found = report(device.probe(known: Harness.device()))
        #expect(found?.accessState == .standby)
        #expect(found?.isCapacityVerified == false)
        #expect(found?.device.blockCount == 1 << 21)
        // Another unit's capacity says nothing about this one.
        device.ready = [.sense(.notReady, 0x04, 0x0B)]
        #expect(failure(device.probe(known: Harness.device(identity: .naa6(high: 1, low: 2)))) != nil)
        device.ready = [.sense(.notReady, 0x04, 0x0B)]
        #expect(report(device.probe())?.isCapacityVerified == false, "nobody knows; who it is can be told all the same")
    }

    @Test func aLongIdentificationPageIsAskedForAgain() {
        var device = Device()
        var descriptors = [Harness.identity.designator!]
        for port in 1...300 { descriptors.append(.relativeTargetPort(UInt16(port))) }
        descriptors.append(.targetPortGroup(9))
        device.pages[.deviceIdentification] = DeviceIdentification(descriptors: descriptors).encode()
        #expect(report(device.probe())?.device.targetPortGroup == 9)
    }

    @Test func aDeviceWithoutPagesIsSeenButHasNoIdentity() {
        var device = Device()
        device.pages = [:]
        let found = report(device.probe())
        #expect(found != nil && found?.device.identity == nil)
    }

    @Test func garbageInsteadOfDataIsAFailureNotATrap() {
        var random = SeededGenerator(state: 3)
        for _ in 0..<300 {
            var device = Device()
            let bytes = { (limit: Int) in
                (0..<Int.random(in: 0...limit, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            }
            for page in device.pages.keys.sorted(by: { $0.rawValue < $1.rawValue }) { device.pages[page] = bytes(80) }
            device.capacity16.1 = bytes(32)
            device.groups = (.good, bytes(200))
            device.inquiry.targetPortGroupSupport = .implicit
            _ = device.probe()
        }
    }

    @Test func verificationIsOneCommandAndTheAccessStatesWhereThereAreAny() {
        var device = Device()
        #expect(device.probe(.verify, known: Harness.device()) == .verified(nil, unitAttentions: []))
        #expect(device.commands.map(\.operationCode) == [0x00])
        let group = TargetPortGroup(identifier: 1, state: .optimized, relativePorts: [1])
        device.groups = (.good, TargetPortGroupReport(groups: [group]).encode())
        #expect(
            device.probe(.verify, known: Harness.device(alua: .implicit))
                == .verified([group], unitAttentions: []))
        #expect(
            device.probe(.accessStates, known: Harness.device(alua: .implicit))
                == .accessStates([group], unitAttentions: []))
    }

    @Test func aUnitAttentionMetByAVerificationIsActedOn() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        harness.probes.removeAll()
        let sense = SenseData(key: .unitAttention, additional: AdditionalSense(0x3F, 0x0E))
        harness.lun.probeFinished(
            PathIndex(1), .verify, .verified(nil, unitAttentions: [sense]), at: harness.now)
        harness.drain()
        #expect(harness.events.contains(.notice(PathIndex(1), .inventoryChanged)))
        #expect(harness.probes.map(\.reason) == [.recheck])
        #expect(harness.route(2) == "aa")
    }

    @Test func aProbeOfTheLUNsOwnMakingBringsAPathUp() {
        let harness = Harness()
        let path = harness.add("a")
        harness.lun.pathLoggedIn(path, at: harness.now)
        harness.drain()
        var probe = harness.lun.makeProbe(path, .connected, targetName: nil)
        var device = Device()
        var step = probe.start()
        while case .send(let command, let byteCount) = step {
            let (outcome, data) = device.answer(command, byteCount)
            step = probe.answered(outcome, data: data)
        }
        if case .finished(let result) = step {
            harness.lun.probeFinished(path, .connected, result, at: harness.now)
        }
        #expect(harness.route(1) == "a")
    }
}
