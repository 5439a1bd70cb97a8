import Multipath
import SCSI

/// A probe of one path whose device answers what the script says. Promise: it ends after a bounded number of
/// commands, each of which asks for a bounded amount of data.
@Sendable
func fuzzProbe(_ input: UnsafeRawBufferPointer) {
    var script = ByteScript(input)
    let reason = script.pick([ProbeReason.connected, .recheck, .verify, .accessStates])
    _ = runProbe(reason, known: nil, &script)
}

func runProbe(_ reason: ProbeReason, known: DeviceDescription?, _ script: inout ByteScript) -> ProbeResult {
    var probe = PathProbe(
        reason: reason, targetName: fuzzTargetName, known: known, dsm: DefaultDSM(policy: PolicySettings(.roundRobin)))
    var step = probe.start()
    var commands = 0
    while true {
        switch step {
        case .finished(let result):
            _ = "\(result)"
            if case .usable(let report) = result {
                require(report.device.blockSize > 0, "a usable device has a block size")
            }
            return result
        case .wait: step = probe.resumed()
        case .send(let command, let byteCount):
            commands += 1
            require(commands <= 64 && byteCount <= 1 << 20, "a probe is bounded")
            let outcome = scriptedOutcome(&script)
            let data = Array((script.flag() ? sane(command) : script.piece(limit: 2048)).prefix(byteCount))
            step = probe.answered(outcome, data: data)
        }
    }
}

func scriptedOutcome(_ script: inout ByteScript) -> PathOutcome {
    switch script.byte() {
    case 0..<0xB0: return .good
    case 0xB0..<0xC0: return .status(SCSIStatus(rawValue: script.byte()), nil)
    case 0xC0..<0xD0:
        return .status(
            .checkCondition,
            SenseData(key: SenseKey(rawValue: script.byte() & 0x0F) ?? .noSense, additional: AdditionalSense(script.byte(), script.byte())))
    case 0xD0..<0xE0: return .status(.checkCondition, SenseData(parsing: script.bytes(32)))
    case 0xE0..<0xE8: return .targetFailure(script.byte())
    case 0xE8..<0xF0: return .short(transferredByteCount: script.word32())
    case 0xF0..<0xF4:
        // Known trouble.
        let (code, qualifier) = script.pick([(0x29, 0), (0x2A, 6), (0x2A, 9), (0x3F, 3), (0x3F, 0x0E), (0x3F, 5)] as [(UInt8, UInt8)])
        return .status(.checkCondition, SenseData(key: .unitAttention, additional: AdditionalSense(code, qualifier)))
    case 0xF4..<0xFA:
        return .status(.checkCondition, SenseData(key: .notReady, additional: AdditionalSense(0x04, script.pick([0x0A, 0x0B, 0x0C, 0x12, 0x03]))))
    default: return .returned(wasSent: script.flag(), script.pick(PathFailureReason.allCases))
    }
}

/// What a disk with two port groups would answer.
private func sane(_ command: CommandDescriptorBlock) -> [UInt8] {
    switch (command.operationCode, command.bytes[1] & 1, command.bytes[2]) {
    case (0x12, 0, _): return [0, 0, 6, 2, 91, 0x10, 0, 2] + Array("LIO-ORG disk0           0001".utf8) + [UInt8](repeating: 0, count: 60)
    case (0x12, _, 0x00): return SupportedVPDPages(pages: [.supportedPages, .unitSerialNumber, .deviceIdentification, .blockLimits]).encode()
    case (0x12, _, 0x80): return UnitSerialNumber(serial: "1234").encode()
    case (0x12, _, 0x83):
        return [0, 0x83, 0, 36, 0x01, 0x03, 0, 0x10, 0x60, 0x01, 0x40, 0x5A, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
            + [0x61, 0x14, 0, 4, 0, 0, 0, 1] + [0x61, 0x15, 0, 4, 0, 0, 0, 1]
    case (0x12, _, _): return BlockLimits().encode()
    case (0x9E, _, _): return ReadCapacity16Data(blockCount: 1 << 20, blockSize: 512).encode()
    case (0xA3, _, _):
        return TargetPortGroupReport(groups: [
            TargetPortGroup(identifier: 1, state: .optimized, relativePorts: [1]),
            TargetPortGroup(identifier: 2, state: .standby, relativePorts: [2]),
        ]).encode()
    default: return []
    }
}

@Sendable
func probeSeeds() -> [[UInt8]] {
    (UInt8(0)..<4).flatMap { reason in
        [
            [reason] + Array(repeating: [0, 1], count: 9).flatMap { $0 },
            [reason, 0xF0, 0, 0] + Array(repeating: [0, 1], count: 9).flatMap { $0 },
            [reason, 0, 1, 0xC0, 5, 0x20, 0, 1, 0, 1, 0, 1, 0xF4, 1, 1, 0, 1, 0, 1],
        ]
    }
}
