import Foundation

/// One thing to fuzz: eats an input, and traps where a promise is broken.
struct FuzzTarget: Sendable {
    var name: String
    var run: @Sendable (UnsafeRawBufferPointer) -> Void
    /// Inputs to begin with, made by the modules' own encoders.
    var seeds: @Sendable () -> [[UInt8]]
}

let fuzzTargets: [FuzzTarget] = [
    FuzzTarget(name: "decoder", run: fuzzDecoder, seeds: decoderSeeds),
    FuzzTarget(name: "text", run: fuzzText, seeds: textSeeds),
    FuzzTarget(name: "login", run: fuzzLogin, seeds: loginSeeds),
    FuzzTarget(name: "initiator", run: fuzzInitiator, seeds: initiatorSeeds),
    FuzzTarget(name: "target", run: fuzzTarget, seeds: targetSeeds),
    FuzzTarget(name: "scsi", run: fuzzSCSI, seeds: scsiSeeds),
    FuzzTarget(name: "probe", run: fuzzProbe, seeds: probeSeeds),
    FuzzTarget(name: "multipath", run: fuzzMultipath, seeds: multipathSeeds),
    FuzzTarget(name: "nbd", run: fuzzNBD, seeds: nbdSeeds),
    FuzzTarget(name: "configuration", run: fuzzConfiguration, seeds: configurationSeeds),
    FuzzTarget(name: "control", run: fuzzControl, seeds: controlSeeds),
]

nonisolated(unsafe) private var chosen = fuzzTargets[0]

/// `fuzz list`, `fuzz seeds DIRECTORY`, or `fuzz TARGET` and libFuzzer's own arguments. libFuzzer has the `main`, and
/// calls this before it looks at the arguments: the target's name is taken out of them. For the processes that it
/// starts itself the name stands in the environment.
@_cdecl("LLVMFuzzerInitialize")
public func initializeFuzzer(
    _ count: UnsafeMutablePointer<Int32>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>
) -> Int32 {
    let first = count.pointee > 1 ? arguments.pointee[1].map { String(cString: $0) } : nil
    switch first {
    case "list":
        for target in fuzzTargets { print(target.name) }
        exit(0)
    case "seeds" where count.pointee == 3:
        writeSeeds(to: URL(fileURLWithPath: String(cString: arguments.pointee[2]!), isDirectory: true))
        exit(0)
    default: break
    }
    let inherited = ProcessInfo.processInfo.environment["FUZZ_TARGET"]
    if let target = fuzzTargets.first(where: { $0.name == first }) {
        chosen = target
        setenv("FUZZ_TARGET", target.name, 1)
        arguments.pointee[1] = arguments.pointee[0]
        arguments.pointee += 1
        count.pointee -= 1
    } else if let target = fuzzTargets.first(where: { $0.name == inherited }) {
        chosen = target
    } else {
        print("usage: fuzz list | fuzz seeds DIRECTORY | fuzz TARGET [libFuzzer arguments]")
        exit(64)
    }
    return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ data: UnsafePointer<UInt8>?, _ size: Int) -> Int32 {
    chosen.run(UnsafeRawBufferPointer(start: data, count: size))
    return 0
}

private func writeSeeds(to folder: URL) {
    do {
        for target in fuzzTargets {
            let directory = folder.appendingPathComponent(target.name, isDirectory: true)
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            for (index, seed) in target.seeds().enumerated() {
                try Data(seed).write(to: directory.appendingPathComponent("seed-\(index)"))
            }
        }
    } catch {
        print("the seeds can't be written: \(error)")
        exit(1)
    }
}
