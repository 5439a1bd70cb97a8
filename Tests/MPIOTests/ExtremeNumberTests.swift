import Foundation
import TestSupport
import Testing

@testable import MPIO

/// Numbers at the ends of their ranges, and past them, from wherever numbers come: each is refused, or taken, and nothing traps.
@Suite(.serialized) struct ExtremeNumberTests {
    private static let numbers = [
        "-9223372036854775808", "-9223372036854775807", "-1", "0", "65536", "9223372036854775807", "18446744073709551615",
        "18446744073709551616", "1.5", "1e308", "-1e308", "99999999999999999999999999",
    ]

    /// Each request that has a number, with the number.
    private static func lines(path: String, _ number: String) -> [String] {
        let lun = #""lun":"a","path":"\#(path)""#
        var lines = ["fail", "drain", "restore"].map {
            #"{"request":"connection","action":"\#($0)",\#(lun),"number":\#(number)}"#
        }
        lines.append(#"{"request":"explain","lun":"a","last":\#(number)}"#)
        lines.append(#"{"request":"events","after":\#(number)}"#)
        lines.append(#"{"request":"set-path",\#(lun),"weight":\#(number)}"#)
        lines.append(#"{"request":"add-path","lun":"a","new-path":{"address":"127.0.0.1:1","weight":\#(number)}}"#)
        lines.append(#"{"request":"add-path","lun":"a","new-path":{"address":"127.0.0.1:\#(number)"}}"#)
        for unit in ["", "B", "P", "s", "d", "us"] {
            lines.append(#"{"request":"set-policy","lun":"a","policy":"round-robin","options":{"switch-after":"\#(number)\#(unit)"}}"#)
            lines.append(#"{"request":"set-policy","lun":"a","policy":"fail-over-only","options":{"fail-back":"\#(number)\#(unit)"}}"#)
            lines.append(#"{"request":"set-connection-policy",\#(lun),"policy":"round-robin","options":{"switch-after":"\#(number)\#(unit)"}}"#)
        }
        return lines
    }

    @Test func everyRequestOfTheControlSocketTakesOrRefusesThem() async throws {
        let target = try TargetWithUnits(units: 1, portals: 1) { $0.maximumConnectionsPerSession = 2 }
        let yaml = target.yaml(units: [0]).replacingOccurrences(of: "    portals:\n", with: "    connections: 2\n    portals:\n")
        let manager = try await PathManager(configuration: Configuration(yaml: yaml), options: target.options)
        let disk = try await manager.open("a")
        #expect(try await eventually { try target.with { $0.connectionCount(portal: 0) == 2 } })
        let buffer = IOBuffer(byteCount: TargetWithUnits.blockByteCount)
        for number in Self.numbers {
            let lines = Self.lines(path: "\(target.portals[0])", number)
            let answers = try await exchange(lines, in: target.options.runtimeDirectory)
            for (line, answer) in zip(lines, answers) {
                #expect(answer.hasPrefix("{") && answer.hasSuffix("}"), "\(line): '\(answer)'")
                guard line.contains(#""request":"connection""#) else { continue }
                #expect(answer.contains(#""code":"no-such-path""#) || answer.contains(#""code":"malformed""#), "\(line): \(answer)")
            }
            // Whatever was taken: requests go on.
            try await disk.read(into: buffer, at: 0)
        }
        for number in [Int.min, .min + 1, -1, 0, 3, .max] {
            let isChanged = try await disk.changeConnection(number, ofPath: "\(target.portals[0])", .drain)
            #expect(!isChanged, "\(number)")
        }
        try await manager.shutdown()
        try target.stop()
    }

    @Test(arguments: [1, 2]) func requestsOutsideOfTheDiskAreRefused(lanes: Int) async throws {
        let target = try TargetWithUnits(units: 1)
        let manager = try await target.manager(reactors: nil, units: [0], head: "reactors: \(lanes)", lanes: { _ in lanes })
        let disk = try await manager.open("a")
        let block = Int64(TargetWithUnits.blockByteCount)
        let lengths: [Int] = [.min, .min + 4096, -4096, -1, 1, 4096, 1 << 40, .max - 4095, .max]
        let offsets: [UInt64] = [1, UInt64(block) * UInt64(TargetWithUnits.blockCount), 1 << 62, 1 << 63, .max - 4095, .max - 1, .max]
        let buffer = IOBuffer(byteCount: 2 * Int(block))
        @Sendable func requests() -> [IORequest] {
            var requests: [IORequest] = []
            for operation in [IORequest.Operation.read, .write, .unmap, .writeZeroes, .compareAndWrite] {
                for length in lengths {
                    for offset in offsets {
                        requests.append(
                            IORequest(operation, offset: offset, byteCount: length, memory: buffer.bytes.baseAddress, token: UInt64(requests.count)))
                    }
                }
            }
            return requests
        }
        let ended = Locked<[UInt64: DiskError?]>([:])
        let queue = IOQueue(disk: disk) { completions in
            ended.withLock { ended in for completion in completions { ended[completion.token] = .some(completion.error) } }
        }
        let count = requests().count
        queue.submit(requests())
        #expect(try await eventually { ended.withLock { $0.count } == count })
        #expect(ended.withLock { $0.values.allSatisfy { $0 != nil } })
        ended.withLock { $0 = [:] }
        await disk.run { queue.submit(requests()) }
        #expect(try await eventually { ended.withLock { $0.count } == count })
        #expect(ended.withLock { $0.values.allSatisfy { $0 != nil } })
        try await manager.shutdown()
        withExtendedLifetime((queue, buffer)) {}
        try target.stop()
    }

    @Test(arguments: ["fifo", "/dev/zero", "/"]) func aReloadReadsNothingButAFile(_ name: String) async throws {
        let target = try TargetWithUnits(units: 1)
        let manager = try await target.manager(reactors: 1, units: [0])
        _ = try await manager.open("a")
        var file = name
        if name == "fifo" {
            file = target.directory.file("fifo")
            #expect(mkfifo(file, 0o600) == 0)
        }
        let line = #"{"request":"reload","file":"\#(file)","dry-run":true}"#
        let answers = try await exchange([line, #"{"request":"identify"}"#], in: target.options.runtimeDirectory)
        #expect(answers[0].contains(#""code":"bad-policy-file""#), "\(answers[0])")
        #expect(answers[1].contains("holder"), "\(answers[1])")
        await #expect(throws: ControlFailure.self) { try await manager.reload(file) }
        try await manager.shutdown()
        try target.stop()
    }

    /// Lines, and the answer to each, on a thread that may block.
    private func exchange(_ lines: [String], in folder: String) async throws -> [String] {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread {
                continuation.resume(
                    with: Result {
                        let name = try FileManager.default.contentsOfDirectory(atPath: folder).first { $0.hasSuffix(".sock") }
                        let client = try RawClient(folder + "/" + (name ?? "none"))
                        return lines.map { line in
                            client.send(line + "\n")
                            return client.receiveLine()
                        }
                    })
            }
        }
    }
}
