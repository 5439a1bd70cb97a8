import ArgumentParser
import Foundation
import MPIO

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure a LUN: requests per second, latency, CPU.",
        discussion: """
            Reads, unless --write is given, which OVERWRITES the LUN. With --verify every block written carries its address \
            and a generation, and is read back. Several LUNs are measured at once, each with --depth requests under way; \
            'reactors' in the policy file spreads them over threads.

            Examples:
              mpio bench vm-store --depth 32 --time 10s
              mpio bench scratch --write --verify --json
            """)

    @Argument(help: ArgumentHelp("The LUNs' names or identities.", valueName: "lun"), completion: Completions.luns)
    var luns: [String]

    @Flag(help: "Write instead of reading. Overwrites the LUN.")
    var write = false

    @Flag(help: "With --write: read back what was written, and compare.")
    var verify = false

    @Option(help: ArgumentHelp("Bytes per request; a multiple of the LUN's block size.", valueName: "size"))
    var blockSize = ByteSize(4096)

    @Option(help: ArgumentHelp("Requests under way at once, 1 to 4096.", valueName: "count"))
    var depth = 32

    @Option(help: ArgumentHelp("How long.", valueName: "time"))
    var time = TimeSpan(.seconds(10))

    @Flag(help: "Go through the LUN in order instead of at random.")
    var sequential = false

    @Flag(help: "Print the result as JSON.")
    var json = false

    @OptionGroup var policyFile: PolicyFileOptions

    func validate() throws {
        guard (1...4096).contains(depth) else { throw ValidationError("--depth is 1 to 4096.") }
        guard (512...(64 << 20)).contains(blockSize.byteCount) else { throw ValidationError("--block-size is 512 to 64M.") }
        guard time.duration >= .milliseconds(10) else { throw ValidationError("--time is at least 10ms.") }
        guard write || !verify else { throw ValidationError("--verify reads back what --write wrote: give both.") }
    }

    func run() async throws {
        let command = self
        let policy = try policyFile.load()
        var names: [String] = []
        for lun in luns {
            let name = try policy.lunName(lun)
            guard !names.contains(name) else { throw CommandFailure("\(name) is given twice", status: ExitStatus.usage) }
            names.append(name)
        }
        let chosen = names
        let report = try await cancelledByInterrupt {
            try await withManager(policy, subcommand: "bench") { try await command.measure(chosen, $0) }
        }
        if json {
            try StandardOutput.writeJSON(report)
        } else {
            try StandardOutput.write(BenchText.render(report, name: names.joined(separator: ", "), style: Terminal.style()))
        }
        if report.errors > 0 { throw ExitStatus.failed }
    }

    private func measure(_ names: [String], _ manager: PathManager) async throws -> BenchReport {
        var runs: [BenchRun] = []
        for name in names { runs += try await prepare(name, manager) }
        let before = await manager.report().luns
        let results = try await BenchRun.measure(runs, for: time.duration)
        let after = await manager.report().luns
        var reports = names.map { name in
            let own = runs.indices.filter { runs[$0].name == name }
            let result = own.count == 1 ? results[own[0]] : BenchRun.sum(own.map { runs[$0] }, own.map { results[$0] })
            let (old, new) = (before.first { $0.name == name }, after.first { $0.name == name })
            var report = result.report(
                paths: BenchResult.difference(before: old, after: new), redriven: (new?.redriven ?? 0) &- (old?.redriven ?? 0))
            if names.count > 1 { report.lun = name }
            return report
        }
        if reports.count == 1 { return reports.removeFirst() }
        var total = BenchRun.sum(runs, results).report(paths: [], redriven: reports.reduce(0) { $0 + $1.redriven })
        // A process has one account of its time.
        for index in reports.indices { reports[index].cpuMicrosecondsPerRequest = total.cpuMicrosecondsPerRequest }
        total.luns = reports
        return total
    }

    /// One run for a LUN, or one for each of its lanes.
    private func prepare(_ name: String, _ manager: PathManager) async throws -> [BenchRun] {
        let disk = try await manager.open(name)
        try DiskStore(disk: disk).check(offset: 0, byteCount: blockSize.byteCount)
        let plan = BenchPlan(
            isWrite: write, isVerified: verify, blockSize: Int(blockSize.byteCount), depth: depth, isSequential: sequential,
            blockCount: disk.capacityByteCount / blockSize.byteCount)
        guard plan.blockCount >= UInt64(depth) else { throw CommandFailure("\(name) has fewer blocks than --depth", status: ExitStatus.usage) }
        return (plan.split(laneCount: disk.laneCount, stripeByteCount: disk.stripeByteCount) ?? [plan]).map { BenchRun(plan: $0, disk: disk) }
    }
}
