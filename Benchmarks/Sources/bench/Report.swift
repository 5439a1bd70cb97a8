import Foundation
import TestSupport

/// All that docs/performance.md shows, measured once.
struct Report {
    private var sections: [(title: String, text: String)] = []
    private let options: Options
    private let machine = Machine.current

    init(_ options: Options) throws {
        self.options = options
        let began = Date()
        for target in TargetKind.allCases {
            add("Loads: \(target.words)", try CaseTable(options, target: target).markdown)
        }
        add("The embedded target against tgtd", try ServerComparison(options).markdown)
        add("Scale", try output(of: "scale", options.isQuick ? ["--quick"] : []))
        add("Choosing a path", try output(of: "path-choice", []))
        try runSweep(options)
        add("Plots", "In the files performance-*.svg, with the numbers in performance-*.json.")
        FileHandle.standardError.write(Data("took \(Int(Date().timeIntervalSince(began))) s\n".utf8))
    }

    private mutating func add(_ title: String, _ text: String) {
        sections.append((title, text))
        print("## \(title)\n\n\(text)\n")
    }

    private func output(of program: String, _ arguments: [String]) throws -> String {
        ProgressLine.show(program)
        let result = try CommandRunner.requireBlocking(
            Arena.programs + "/" + program, arguments + (options.mpioPath.map { program == "scale" ? ["--mpio", $0] : [] } ?? []),
            timeout: .seconds(600))
        ProgressLine.end()
        return result.standardOutput.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    func write(to directory: String) throws {
        var text = "# Measured \(today())\n\n\(machine.words); load before it began \(machine.load); \(Arena.pinning).\n"
        for section in sections { text += "\n## \(section.title)\n\n\(section.text)\n" }
        try Sweep.write(Data(text.utf8), to: "\(directory)/performance-report.md")
        print("\(directory)/performance-report.md")
    }
}
