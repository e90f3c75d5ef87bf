// The part of MathJax that the book needs: TeX in, HTML with web fonts out, and hidden MathML for
// screen readers. tools/vendor.py bundles this file into book/_static/vendor/mathjax/mathjax.js:
// a third of the size of the ready-made tex-mml-chtml.js. A macro from a TeX package that is
// not listed here shows as an error on the page, and the browser tests fail on it.
import { AssistiveMmlHandler } from "mathjax-full/ts/a11y/assistive-mml";
import { browserAdaptor } from "mathjax-full/ts/adaptors/browserAdaptor";
import { RegisterHTMLHandler } from "mathjax-full/ts/handlers/html";
import { TeX } from "mathjax-full/ts/input/tex";
import "mathjax-full/ts/input/tex/ams/AmsConfiguration";
import "mathjax-full/ts/input/tex/base/BaseConfiguration";
import "mathjax-full/ts/input/tex/boldsymbol/BoldsymbolConfiguration";
import "mathjax-full/ts/input/tex/cancel/CancelConfiguration";
import "mathjax-full/ts/input/tex/color/ColorConfiguration";
import "mathjax-full/ts/input/tex/configmacros/ConfigMacrosConfiguration";
import "mathjax-full/ts/input/tex/enclose/EncloseConfiguration";
import "mathjax-full/ts/input/tex/html/HtmlConfiguration";
import "mathjax-full/ts/input/tex/newcommand/NewcommandConfiguration";
import { mathjax } from "mathjax-full/ts/mathjax";
import { CHTML } from "mathjax-full/ts/output/chtml";

const packages = [
  "base", "ams", "boldsymbol", "cancel", "color", "configmacros", "enclose", "html", "newcommand",
];
const fontURL = document.currentScript.src.replace(/[^/]*$/, "woff-v2");
const config = window.MathJax ?? {}; // written into the page by Sphinx

AssistiveMmlHandler(RegisterHTMLHandler(browserAdaptor()));
const math = mathjax.document(document, {
  ...config.options,
  InputJax: new TeX({ packages, ...config.tex }),
  OutputJax: new CHTML({ fontURL, ...config.chtml }),
});

const loaded = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", resolve, { once: true });
});
const promise = loaded.then(() => mathjax.handleRetriesFor(() => math.render()));
window.MathJax = { ...config, version: mathjax.version, startup: { document: math, promise } };
