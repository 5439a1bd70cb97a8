import ArgumentParser
import Foundation
import MPIO

struct CopyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "copy",
        abstract: "Copy a file to a LUN, a LUN to a file, or a LUN to a LUN.",
        discussion: """
            A name of the policy file is a LUN; anything else, and anything with a '/', is a file. Overwrites the destination.

            Examples:
              mpio copy ./image.raw vm-store --verify
              mpio copy vm-store /backup/vm-store.img
            """)

    @Argument(help: "A LUN's name, or a file.", completion: Completions.lunsAndFiles)
    var source: String

    @Argument(help: "A LUN's name, or a file.", completion: Completions.lunsAndFiles)
    var destination: String

    @Flag(help: "Read both sides again afterwards and compare.")
    var verify = false

    @OptionGroup var policyFile: PolicyFileOptions

    func run() async throws {
        let command = self
        let policy = try policyFile.load()
        let (from, to) = (Place(source, policy), Place(destination, policy))
        guard from != to else { throw CommandFailure("source and destination are the same", status: ExitStatus.usage) }
        guard from.isLUN || to.isLUN else {
            throw CommandFailure("neither '\(source)' nor '\(destination)' is a LUN of the policy file", status: ExitStatus.usage)
        }
        try await cancelledByInterrupt {
            try await withManager(policy, subcommand: "copy") { try await command.copy(from, to, $0) }
        }
    }

    enum Place: Equatable {
        case lun(String)
        case file(String)

        init(_ text: String, _ policy: Configuration) {
            if !text.contains("/"), let lun = policy.luns.first(where: { $0.isNamed(text) }) {
                self = .lun(lun.name)
            } else {
                self = .file(text)
            }
        }

        var isLUN: Bool { if case .lun = self { true } else { false } }
    }

    private func copy(_ from: Place, _ to: Place, _ manager: PathManager) async throws {
        let source: any BlockStore =
            switch from {
            case .lun(let name): DiskStore(disk: try await manager.open(name))
            case .file(let path): try FileStore(reading: path)
            }
        let target: any BlockStore =
            switch to {
            case .lun(let name): DiskStore(disk: try await manager.open(name))
            case .file(let path): try FileStore(writing: path, byteCount: source.byteCount)
            }
        let copy = BlockCopy(source: source, destination: target, byteCount: source.byteCount)
        let start = ContinuousClock.now
        let line = ProgressLine(total: source.byteCount)
        defer { line.finish() }
        try await copy.run { line.update($0) }
        line.finish()
        let elapsed = ContinuousClock.now - start
        if verify {
            let line = ProgressLine(total: source.byteCount)
            defer { line.finish() }
            try await copy.verify { line.update($0) }
        }
        guard StandardError.isTerminal else { return }
        let seconds = Double(elapsed.wholeMilliseconds) / 1000
        let rate = seconds > 0 ? HumanText.megabytes(Double(source.byteCount) / seconds) + " MB/s" : ""
        StandardError.write("\(HumanText.size(source.byteCount)) copied\(verify ? " and verified" : "")  \(rate)\n")
    }
}

extension Duration {
    var wholeMilliseconds: Int64 { components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000 }
}
