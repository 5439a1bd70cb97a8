// swift-tools-version: 6.2
import PackageDescription

// Coverage-guided fuzzing (libFuzzer, part of the toolchain). A package of its own, so that nobody who uses
// mpio builds it; `make fuzz` builds and runs it with the sanitizers that it needs.

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
    name: "Fuzzing",
    dependencies: [.package(name: "mpio", path: "..")],
    targets: [
        .executableTarget(
            name: "fuzz",
            dependencies: [.product(name: "MPIO", package: "mpio"), .product(name: "ISCSITarget", package: "mpio"), .product(name: "NBD", package: "mpio")],
            swiftSettings: strict,
            // gold, the default, stumbles over the sanitizers' symbols.
            linkerSettings: [.unsafeFlags(["-use-ld=lld"])]),
    ],
    swiftLanguageModes: [.v6]
)
