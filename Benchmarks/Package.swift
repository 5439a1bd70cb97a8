// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]
let gnuSource: [CSetting] = [.define("_GNU_SOURCE")]

let package = Package(
    name: "Benchmarks",
    dependencies: [.package(name: "mpio", path: "..")],
    targets: [
        // Clock, CPU time and latency histogram, and the one line of JSON that every contender prints.
        .target(name: "Measuring", cSettings: gnuSource),
        // Links to the tests' folders of these names: one way to count allocations, and to start a tgtd, not two.
        .target(name: "AllocationCount"),
        .target(name: "TestSupport", cSettings: gnuSource, swiftSettings: strict),
        .executableTarget(
            name: "libiscsi-client", dependencies: ["Measuring"], cSettings: gnuSource,
            linkerSettings: [.linkedLibrary("iscsi")]),
        .executableTarget(
            name: "mpio-client", dependencies: ["Measuring", "AllocationCount", .product(name: "MPIO", package: "mpio")],
            swiftSettings: strict),
        .executableTarget(name: "qemu-client", dependencies: ["Measuring"], cSettings: gnuSource),
        .executableTarget(
            name: "iscsi-perf-client", dependencies: ["Measuring"], cSettings: gnuSource,
            linkerSettings: [.linkedLibrary("iscsi"), .linkedLibrary("m")]),
        .executableTarget(name: "tcp-floor-client", dependencies: ["Measuring"], cSettings: gnuSource),
        .executableTarget(name: "tcp-floor-server", cSettings: gnuSource),
        .executableTarget(name: "bench", dependencies: ["TestSupport"], swiftSettings: strict),
        .executableTarget(
            name: "scale", dependencies: ["Measuring", "TestSupport", .product(name: "MPIO", package: "mpio")],
            swiftSettings: strict),
        .executableTarget(
            name: "path-choice", dependencies: ["Measuring", "AllocationCount", .product(name: "MPIO", package: "mpio")],
            swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6]
)
