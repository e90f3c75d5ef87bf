// Bundles the d3 modules named in entry.js into one committed file and records what it was made of.
// Run: npm ci && node build.mjs     (only when entry.js or package-lock.json changes)
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const vendor = join(here, "../../dpo_lib/widgets/js/vendor");
const sha256 = (data) => createHash("sha256").update(data).digest("hex");

const result = await build({
  entryPoints: [join(here, "entry.js")],
  bundle: true,
  format: "esm",
  minify: true,
  charset: "utf8",
  target: "es2020",
  legalComments: "none",
  metafile: true,
  write: false,
  banner: { js: "/* d3 modules, ISC licence; versions, licence texts and hash: d3.json */" },
});

// Only the packages that really reached the bundle, with the licence that each carries.
const names = new Set();
for (const [path, use] of Object.entries(Object.values(result.metafile.outputs)[0].inputs)) {
  const match = path.match(/node_modules\/([^/]+)\//);
  if (match && use.bytesInOutput > 0) names.add(match[1]);
}
const packages = [...names].sort().map((name) => {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((f) => /^licen[cs]e/i.test(f));
  return { name, version, license, license_text: readFileSync(join(folder, file), "utf8") };
});

const code = result.outputFiles[0].text;
writeFileSync(join(vendor, "d3.js"), code);
writeFileSync(
  join(vendor, "d3.json"),
  JSON.stringify(
    {
      bundle_sha256: sha256(code),
      entry_sha256: sha256(readFileSync(join(here, "entry.js"))),
      lock_sha256: sha256(readFileSync(join(here, "package-lock.json"))),
      made_by: "tools/bundle_d3/build.mjs",
      packages,
    },
    null,
    2,
  ) + "\n",
);
console.log(`d3.js: ${code.length} characters from ${packages.length} packages`);
